from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from whydeep.core import Data, InputError
from whydeep.generalization.capacity.chain import read_chain, why_no_chain
from whydeep.generalization.capacity.fixed_map import SLOPES
from whydeep.networks import cnn, mlp
from whydeep.networks.normalise import Normalise


def images(n: int = 20, channels: int = 1, size: int = 8) -> Data:
    x = torch.randn(n, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Data(x, torch.arange(n) % 3, classes=3)


def test_a_two_layer_network_worked_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    model[0].weight.data = torch.tensor([[3.0, 0.0], [0.0, 4.0]]).double()
    model[0].bias.data = torch.tensor([0.6, -0.8]).double()
    model[2].weight.data = torch.tensor([[0.0, 2.0], [0.0, 0.0]]).double()
    model[2].bias.data = torch.zeros(2).double()
    # Inputs of norm 1 and 7: root mean square sqrt(50 / 2) = 5.
    chain = read_chain(model, Data(torch.tensor([[1.0, 0.0], [0.0, 7.0]]).double(), torch.tensor([0, 1]), classes=2))
    first, second = chain.links
    assert first.spectral == pytest.approx(4)
    assert first.distance == pytest.approx(3 + 4)
    assert first.bias == pytest.approx(1)
    assert first.bias_distance == pytest.approx(1.4)
    assert first.parameters == 6
    assert (second.spectral, second.distance, second.bias) == pytest.approx((2, 2, 0))
    assert chain.sizes == pytest.approx((5, 4 * 5 + 1))
    assert chain.rests == pytest.approx((2, 1))
    assert chain.product == pytest.approx(8)


NETWORKS = {
    "relu": lambda: mlp((64, 20, 10, 3)),
    "sigmoid": lambda: mlp((64, 20, 10, 3), activation="sigmoid", init="xavier", gain=4.0),
    "softplus": lambda: mlp((64, 20, 3), activation="softplus"),
    "cnn": lambda: cnn((1, 8, 8), 3, channels=(4, 6)),
    "batch norm": lambda: cnn((1, 8, 8), 3, channels=(4, 6), batch_norm=True),
    "linear batch norm": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 9), nn.BatchNorm1d(9), nn.GELU(), nn.Linear(9, 3)
    ),
    "overlapping pools": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.MaxPool2d(3, 1), nn.Tanh(), nn.AvgPool2d(3, 1, padding=1), nn.Flatten(), nn.Linear(48, 3)
    ),
    "adaptive": lambda: nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 5, 3, stride=2), nn.SiLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    ),
    "normalised": lambda: nn.Sequential(Normalise([0.5], [0.25]), nn.Flatten(), nn.Dropout(), nn.Linear(64, 3)),
}


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def network(request: pytest.FixtureRequest) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = request.param().double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):  # as if it had been trained
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
        return model


def test_no_difference_and_no_output_exceeds_what_the_chain_allows(network: nn.Module) -> None:
    data = images()
    chain = read_chain(network, data)
    network.eval()
    with torch.no_grad():
        out = network(data.x)
        # The product bounds the map from the first affine layer's input; Normalise before it stretches by 1/0.25.
        before = 4.0 if isinstance(network[0], Normalise) else 1.0
        for scale in (1e-3, 1.0):
            step = scale * torch.randn(data.x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
            moved = (network(data.x + step) - out).norm(dim=1)
            assert bool((moved <= chain.product * before * step.flatten(1).norm(dim=1)).all())
    last = chain.links[-1]
    assert float(out.square().sum(1).mean().sqrt()) <= last.spectral * chain.sizes[-1] + last.bias


def test_distances_are_measured_from_the_start(network: nn.Module) -> None:
    chain = read_chain(network, images(), start=network)
    assert [link.distance for link in chain.links] == [0.0] * len(chain.links)
    assert [link.bias_distance for link in chain.links] == [0.0] * len(chain.links)
    assert chain.sizes == read_chain(network, images()).sizes


def test_reading_leaves_the_network_alone(network: nn.Module) -> None:
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    read_chain(network, images())
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_convolution_on_one_pixel_is_a_linear_layer() -> None:
    conv = nn.Sequential(nn.Conv2d(4, 3, 1), nn.Flatten()).double()
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    linear[1].weight.data, linear[1].bias.data = conv[0].weight.data[:, :, 0, 0], conv[0].bias.data
    (one,), (other,) = (read_chain(model, images(5, 4, 1)).links for model in (conv, linear))
    for name in ("spectral", "distance", "bias", "bias_distance", "parameters"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-8), name


def test_a_convolution_counts_its_bias_at_every_position() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten(), nn.Linear(64, 3)).double()
    model[0].bias.data.fill_(-0.5)
    link = read_chain(model, images()).links[0]
    assert link.bias == pytest.approx(0.5 * 8)  # 64 positions
    assert link.bias_distance == pytest.approx(0.5 * 8)


def test_slopes_are_the_largest_derivatives() -> None:
    z = torch.linspace(-10, 10, 200_001, dtype=torch.float64, requires_grad=True)
    for kind, slope in SLOPES.items():
        (derivative,) = torch.autograd.grad(kind()(z).sum(), z)
        largest = float(derivative.abs().max())
        # GELU and SiLU are rounded up in the third digit; softplus nears 1 from below.
        assert largest <= slope <= largest + 0.002, kind


def test_networks_that_are_no_chain_are_named() -> None:
    class Residual(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + super().forward(x)

    refused = {
        "MultiheadAttention": nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.MultiheadAttention(8, 2)),
        "Residual": nn.Sequential(nn.Flatten(), Residual(nn.Linear(64, 64)), nn.Linear(64, 3)),
        "LayerNorm": nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8)),
        "folded": nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3)),
        "reflect": nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")),
        "no nn.Sequential": nn.Linear(64, 3),
        "no Linear": nn.Sequential(nn.Flatten()),
    }
    for word, model in refused.items():
        reason = why_no_chain(model)
        assert reason is not None
        assert word in reason
        with pytest.raises(InputError, match=r"no chain"):
            read_chain(model, images())


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_a_hook_that_may_change_the_function_is_noticed(where: str) -> None:
    model = mlp((64, 5, 3)).double()
    (model[1] if where == "inside" else model).register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(InputError, match="hooks"):
        read_chain(model, images())


def test_a_fold_that_is_no_identity_is_noticed() -> None:
    # On (n, 6, 6) signals the normalisation acts on dimension 1, the linear layer on the last one; both have size 6.
    model = nn.Sequential(nn.Unflatten(1, (6, 2)), nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Flatten()).double()
    model[2].running_mean.copy_(torch.arange(6.0))
    data = Data(torch.randn(5, 12, dtype=torch.float64), torch.zeros(5, dtype=torch.int64), classes=36)
    with pytest.raises(InputError, match="do not give its outputs"):
        read_chain(model, data)


def test_the_size_of_what_enters_is_a_root_mean_square() -> None:
    x = images().x
    size = read_chain(mlp((64, 5, 3)).double(), images()).root_mean_square
    assert size == pytest.approx(math.sqrt(float(x.flatten(1).square().sum(1).mean())))
