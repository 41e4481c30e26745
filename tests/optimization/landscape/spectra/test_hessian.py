"""The Hessian operator against the dense Hessian, and against one known by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dense_hessian import dense
from problems import blobs, digits, small_problem
from torch import Tensor, nn

from whydeep.core import Data, InputError, Problem
from whydeep.networks import cnn, linear
from whydeep.optimization.landscape.spectra.hessian import Engine, Hessian


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(hessian: Hessian) -> Tensor:
    return torch.stack([hessian(unit) for unit in torch.eye(hessian.size, dtype=torch.float64)], dim=1)


@pytest.mark.parametrize("batch_size", [2048, 7], ids=["one graph", "ragged batches"])
def test_products_give_the_dense_hessian(batch_size: int) -> None:
    # 60 samples in batches of 7 leave a last one of 4: weighing batches alike would be wrong by far more than 1e-12.
    problem = small_problem(dtype=torch.float64)
    torch.testing.assert_close(matrix(Hessian(problem, batch_size=batch_size)), dense(problem), rtol=1e-10, atol=1e-13)


def test_a_linear_model_with_squared_loss_has_the_mean_product_of_inputs() -> None:
    # R = 1/(2n) sum |W x + b - y|^2: the Hessian is I_k (x) 1/n sum [x; 1][x; 1]^T, whatever y and the weights are.
    x, y = normal(9, 3), normal(9, 2, seed=1)
    problem = Problem(linear(3, 2).double(), Data(x, y), loss="squared")
    moment = torch.cat([x, torch.ones(9, 1, dtype=torch.float64)], 1)
    moment = moment.T @ moment / 9
    expected = torch.zeros(8, 8, dtype=torch.float64)
    for k in range(2):  # weights of output k at 3k..3k+2, its bias at 6 + k
        places = [3 * k, 3 * k + 1, 3 * k + 2, 6 + k]
        expected[torch.tensor(places)[:, None], torch.tensor(places)] = moment
    torch.testing.assert_close(matrix(Hessian(problem)), expected)


def test_frozen_parameters_are_left_out() -> None:
    problem = small_problem(dtype=torch.float64)
    whole = dense(problem)
    model = problem.copy()
    model[1].weight.requires_grad_(False)  # the first 15 entries of the vector
    torch.testing.assert_close(matrix(Hessian(problem.with_model(model))), whole[15:, 15:], rtol=1e-10, atol=1e-13)


def test_batch_norm_uses_its_running_statistics_and_keeps_them() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    model(normal(20, 3))  # moves the running statistics away from 0 and 1
    problem = Problem(model, blobs(20, dtype=torch.float64))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.testing.assert_close(matrix(Hessian(problem)), dense(problem), rtol=1e-10, atol=1e-13)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())


class Attention(nn.Module):
    """Rows of an image attend to each other, by the fused kernel unless it is forbidden."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.out = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x.squeeze(1)).mean(1))


def test_attention_has_products_that_agree_with_differences_of_gradients() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Attention().double()
    problem = Problem(model, digits(40, dtype=torch.float64)[0])
    hessian = Hessian(problem)
    w, v = problem.vector(), normal(hessian.size)
    step = 1e-5 / float(v.norm())
    # Central difference: error of order step^2 |third derivative| plus rounding 1e-16 / step, about 1e-8.
    difference = (problem.at(w + step * v).gradient() - problem.at(w - step * v).gradient()) / (2 * step)
    torch.testing.assert_close(hessian(v), difference, rtol=1e-5, atol=1e-6)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_operator_is_symmetric_on_a_convolutional_network(batch_norm: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cnn((1, 8, 8), 10, channels=(4,), batch_norm=batch_norm).double()
    hessian = Hessian(Problem(model, digits(30, dtype=torch.float64)[0]))
    u, v = normal(hessian.size), normal(hessian.size, seed=1)
    assert float(u @ hessian(v)) == pytest.approx(float(v @ hessian(u)), rel=1e-10)
    assert hessian.products == 2


def test_a_loss_that_is_linear_in_the_weights_has_no_curvature() -> None:
    problem = Problem(linear(3, 1), Data(torch.ones(4, 3), torch.zeros(4, 1)), loss=lambda output, _: output[:, 0])
    assert torch.equal(Hessian(problem)(torch.ones(4)), torch.zeros(4))


def test_what_cannot_be_differentiated_is_refused() -> None:
    problem = small_problem()
    with pytest.raises(ValueError, match=r"shape \(3,\); the Hessian takes \(59,\)"):
        Hessian(problem)(torch.zeros(3))
    frozen = problem.copy().requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        Hessian(problem.with_model(frozen))
    with pytest.raises(ValueError, match="unknown engine"):
        Hessian(problem, engine="fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="60 samples come in batches of 7"):
        Hessian(problem, engine="retained", batch_size=7)
    with pytest.raises(ValueError, match="Gauss-Newton matrix has no engine"):
        Hessian(problem, engine="difference", gauss_newton=True)
    steps = Problem(problem.model, problem.train, loss=lambda output, _: (output > 0).float().sum(1))
    with pytest.raises(InputError, match="not a differentiable function"):
        Hessian(steps)


@pytest.mark.parametrize(
    ("engine", "batch_size"),
    [
        ("retained", 2048),
        ("rebuilt", 2048),
        ("rebuilt", 7),
        ("linearised", 2048),
        ("difference", 2048),
        ("difference", 7),
    ],
)
def test_every_engine_gives_the_dense_hessian(engine: Engine, batch_size: int) -> None:
    problem = small_problem(dtype=torch.float64)
    hessian = Hessian(problem, engine=engine, batch_size=batch_size)
    block = hessian(torch.eye(hessian.size, dtype=torch.float64))  # all in one block
    # Central differences in double precision: step 6e-6 of the weights' length, error of order its square.
    tolerance = 1e-8 if engine == "difference" else 1e-12
    torch.testing.assert_close(block, dense(problem), rtol=1e-10, atol=tolerance)
    assert hessian.products == hessian.size
    torch.testing.assert_close(hessian(block[0]), block @ block[0], rtol=1e-8, atol=10 * tolerance)


class OnceDifferentiable(torch.autograd.Function):
    """sin, as an extension written in another language has it: with a backward pass and none beyond."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.cos()


class Sine(nn.Module):
    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = own

    def forward(self, x: Tensor) -> Tensor:
        return OnceDifferentiable.apply(x) if self.own else x.sin()


def test_layers_without_a_second_derivative_are_taken_by_differences() -> None:
    def network(own: bool) -> nn.Module:
        first, last = nn.Linear(3, 4).double(), nn.Linear(4, 3).double()
        with torch.no_grad():
            first.weight.copy_(normal(4, 3)), last.weight.copy_(normal(3, 4, seed=1))
            first.bias.zero_(), last.bias.zero_()
        return nn.Sequential(first, Sine(own), last)

    data = blobs(dtype=torch.float64)
    hessian = Hessian(Problem(network(True), data))
    assert hessian.engine == "difference"
    torch.testing.assert_close(matrix(hessian), dense(Problem(network(False), data)), rtol=0, atol=1e-8)
    with pytest.raises(InputError, match="no second derivative"):  # else PyTorch gives a wrong product in silence
        Hessian(Problem(network(True), data), engine="rebuilt")


class Root(nn.Module):
    """Finite everywhere, with an infinite slope at 0."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.detach()).abs().sqrt() + x


def test_a_gradient_that_is_not_finite_names_the_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), Root(), nn.Linear(4, 3))
    with pytest.raises(InputError, match=r"NaN or infinite at 2\.bias, from a layer behind"):
        Hessian(Problem(model, blobs()))


def test_batch_norm_can_use_the_statistics_of_the_batch() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    data = blobs(20, dtype=torch.float64)

    class Written(nn.Module):
        """The same network with the normalisation written out."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = model[0], model[1], model[3]

        def forward(self, x: Tensor) -> Tensor:
            z = self.first(x)
            z = (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()
            return self.last((z * self.norm.weight + self.norm.bias).tanh())

    problem = Problem(model, data)
    theirs = dense(Problem(Written(), data))
    torch.testing.assert_close(matrix(Hessian(problem, batch_norm="batch")), theirs, rtol=1e-9, atol=1e-11)
    with pytest.raises(InputError, match="depend on how the data are cut"):
        Hessian(problem, batch_norm="batch", batch_size=7)
    assert model[1].running_mean is not None
    assert model[1].track_running_stats
