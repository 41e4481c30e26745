"""The flow of gradients: the mean field against simulation, the measurement against gradients by hand."""

from __future__ import annotations

import math

import pytest
import torch
from problems import blobs, digits, small_problem
from torch import Tensor, nn

from whydeep.core import Data, Problem
from whydeep.networks import cnn, mlp
from whydeep.optimization.gradient_flow import (
    Layer,
    dense_layers,
    gradient_norms,
    mean_field,
    moments,
    weight_layers,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


ALL = [nn.Identity(), nn.ReLU(), nn.LeakyReLU(0.2), nn.Sigmoid(), nn.Tanh(), nn.SiLU(), nn.GELU(), nn.Softplus()]


@pytest.mark.parametrize("q", [0.05, 1.3, 40.0])
@pytest.mark.parametrize("activation", ALL, ids=lambda module: type(module).__name__)
def test_moments_agree_with_drawing_z(activation: nn.Module, q: float) -> None:
    h = (math.sqrt(q) * normal(200_000)).requires_grad_()
    value = activation(h)
    (slope,) = torch.autograd.grad(value.sum(), h)
    for drawn, computed in zip((value.detach().square(), slope.square()), moments(activation, q), strict=True):
        error = float(drawn.std()) / math.sqrt(len(drawn))
        assert abs(float(drawn.mean()) - computed) <= 4 * error + 1e-12


def test_moments_of_the_limits_are_known() -> None:
    assert moments(nn.Sigmoid(), 0.0) == pytest.approx((0.25, 1 / 16))  # phi(0)^2, phi'(0)^2
    assert moments(nn.Tanh(), 0.0) == pytest.approx((0, 1))
    assert moments(nn.LeakyReLU(0.5), 2.0) == (1.25, 0.625)
    # A sigmoid at q -> infinity is a step: E phi^2 -> 1/2, E phi'^2 -> density at 0 times the integral of phi'^2
    # over h, 1/6: 1 / (6 sqrt(2 pi q)). The next term is smaller by a factor of order 1/q.
    value, slope = moments(nn.Sigmoid(), 1e4)
    assert slope == pytest.approx(1 / (6 * math.sqrt(2 * math.pi * 1e4)), rel=1e-3)
    assert value == pytest.approx(0.5, abs=0.01)


def test_unknown_activations_and_bad_variances_are_refused() -> None:
    with pytest.raises(ValueError, match="no mean field is known for Hardtanh; known are Identity"):
        moments(nn.Hardtanh(), 1.0)
    with pytest.raises(ValueError, match="finite number >= 0"):
        moments(nn.ReLU(), -1.0)


@pytest.mark.parametrize(
    ("activation", "weight_variance", "factor", "tolerance"),
    [
        (nn.ReLU(), 1.0, math.sqrt(0.5), 1e-12),
        (nn.ReLU(), 2.0, 1.0, 1e-12),
        (nn.Identity(), 1.0, 1.0, 1e-12),
        # Known to three digits, from networks of depth 30 and width 100: 0.235, 0.315 and 0.938 were measured.
        (nn.Sigmoid(), 1.0, 0.236, 2e-3),
        (nn.Sigmoid(), 2.0, 0.318, 3e-3),
        (nn.Tanh(), 1.0, 0.938, 6e-3),
    ],
)
def test_factors_of_equal_layers(
    activation: nn.Module, weight_variance: float, factor: float, tolerance: float
) -> None:
    field = mean_field([Layer(weight_variance, 0.0, activation)] * 30, input_square=1.0)
    assert field.factor == pytest.approx(factor, abs=tolerance)
    assert float(field.lengths[0]) == pytest.approx(field.factor**29, rel=1e-10)
    assert float(field.lengths[-1]) == 1


def test_the_fixed_point_with_biases_is_that_of_the_book() -> None:
    # Sigmoid, s_w^2 = s_b^2 = 1: q* = 1.302, chi = 0.04196, so a gradient grows by 4.88 a layer towards the output.
    field = mean_field([Layer(1.0, 1.0, nn.Sigmoid())] * 40, input_square=0.3)
    assert float(field.variance[-1]) == pytest.approx(1.302, abs=5e-4)
    assert float(field.chi[-1]) == pytest.approx(0.04196, abs=5e-6)


def test_one_layer_has_no_factor() -> None:
    with pytest.raises(ValueError, match="needs two"):
        mean_field([Layer(1.0, 0.0, nn.ReLU())], input_square=1.0)


def test_each_layer_counts_with_its_own_variance_width_and_bias() -> None:
    # Widths, gains and biases all differ, so that a wrong fan, layer or bias would show.
    widths = (300, 500, 800, 400, 600)
    logs = []
    for seed in range(4):
        draw = torch.Generator().manual_seed(seed)
        model = mlp(widths, activation="tanh", init="he", gain=0.9, generator=draw).double()
        with torch.no_grad():
            for k, layer in enumerate(m for m in model if isinstance(m, nn.Linear)):
                layer.weight.mul_(1 + 0.2 * k)
                layer.bias.normal_(std=0.2 * k, generator=draw)
        x = torch.randn(8, 300, generator=draw, dtype=torch.float64)
        pull = torch.randn(8, 600, generator=draw, dtype=torch.float64)  # the gradient at the output, as it comes
        problem = Problem(model, Data(x, pull), loss=lambda output, target: (output * target).sum(1))
        field = mean_field(dense_layers(model), input_square=float(x.square().mean()))
        measured = gradient_norms(problem).norms
        logs.append((measured / measured[-1] / field.lengths).log())
    # Each of the four layers scatters by about 1/sqrt(2 width) = 3 %, less over samples; four networks, 4 errors.
    assert float(torch.stack(logs).mean(0).abs().max()) < 0.05


def test_norms_are_those_of_the_gradients_by_hand() -> None:
    # One hidden layer, squared loss: delta_2 = output - target, delta_1 = phi'(h) * W2^T delta_2.
    model = mlp((3, 4, 2), activation="tanh", init="he", generator=torch.Generator().manual_seed(0)).double()
    x, y = normal(7, 3), normal(7, 2, seed=1)
    h = x @ model[1].weight.T
    last = torch.tanh(h) @ model[3].weight.T - y
    first = (1 - torch.tanh(h).square()) * (last @ model[3].weight)
    expected = torch.stack([first.square().sum(1).mean().sqrt(), last.square().sum(1).mean().sqrt()]).detach()
    for batch_size in (100, 3):  # the last batch holds one sample
        seen = gradient_norms(Problem(model, Data(x, y), loss="squared"), batch_size=batch_size)
        torch.testing.assert_close(seen.norms, expected)
    assert seen.names == ("1", "3")
    assert seen.factor == pytest.approx(float(expected[0] / expected[1]))


def test_an_activation_in_place_and_frozen_layers_change_nothing() -> None:
    def net(in_place: bool) -> nn.Module:
        draw = torch.Generator().manual_seed(3)
        model = mlp((3, 6, 6, 3), init="he", generator=draw).double()
        return nn.Sequential(*(nn.ReLU(inplace=in_place) if isinstance(m, nn.ReLU) else m for m in model))

    data = blobs(dtype=torch.float64)
    plain = gradient_norms(Problem(net(False), data)).norms
    torch.testing.assert_close(gradient_norms(Problem(net(True), data)).norms, plain)
    torch.testing.assert_close(gradient_norms(Problem(net(True).requires_grad_(False), data)).norms, plain)


def test_the_network_is_left_as_it_was() -> None:
    problem = small_problem()
    problem.model.train()
    gradient_norms(problem)
    assert problem.model.training
    assert all(value.grad is None for value in problem.model.parameters())
    assert not any(module._forward_hooks for module in problem.model.modules())


def test_a_dead_network_has_ratio_and_factor_zero() -> None:
    problem = small_problem("relu", dtype=torch.float64)
    with torch.no_grad():
        problem.model[1].bias.fill_(-100.0)
    seen = gradient_norms(problem)
    assert seen.ratio == seen.factor == 0


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.out = nn.utils.parametrizations.weight_norm(nn.Linear(8, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(x.squeeze(1)).mean(1))


def test_layers_are_found_in_convolutions_and_in_attention() -> None:
    train, _ = digits(20)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        seen = gradient_norms(Problem(Attention(), train))
        assert list(weight_layers(cnn((1, 8, 8), 10, batch_norm=True))) == ["0", "4", "9"]
    # Attention itself, not its output projection, which it never calls; normalisations do not count.
    assert seen.names == ("encoder.self_attn", "encoder.linear1", "encoder.linear2", "out")
    assert bool((seen.norms > 0).all())


def test_only_a_plain_sequence_of_dense_layers_has_the_mean_field() -> None:
    assert [type(layer.activation) for layer in dense_layers(mlp((4, 3, 2)))] == [nn.ReLU, nn.Identity]
    with pytest.raises(ValueError, match="a Conv2d stands where"):
        dense_layers(cnn((1, 8, 8), 10))
    with pytest.raises(ValueError, match="needs an nn"):
        dense_layers(nn.Linear(2, 2))
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0], [0.0, 0.0]]))
        layer.bias.copy_(torch.tensor([3.0, 0.0, 0.0]))
    (found,) = dense_layers(nn.Sequential(layer))
    assert (found.weight_variance, found.bias_variance) == (2 * 6 / 6, 3.0)  # fan_in * mean of squares
