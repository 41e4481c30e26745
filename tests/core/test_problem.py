"""The problem: its risk and gradient by independent routes, what it refuses, and that it leaves no trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from problems import blobs, small_problem
from torch import Tensor, nn

from whydeep.core import Data, InputError, Loss, Problem
from whydeep.networks import linear, mlp


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared", "hinge"])
@pytest.mark.parametrize("batch_size", [1, 7, 59, 60, 999])
def test_risk_and_gradient_do_not_depend_on_ragged_batches(loss: str, batch_size: int) -> None:
    problem = Problem(small_problem(dtype=torch.float64).model, blobs(dtype=torch.float64), loss=loss)
    x, y = problem.train.x, problem.train.targets
    assert isinstance(x, Tensor)
    whole = Loss.of(loss)(problem.model(x), y).mean()  # by hand, in one batch
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(whole, list(problem.model.parameters()))])
    assert problem.risk(batch_size=batch_size) == pytest.approx(float(whole.detach()), rel=1e-13)
    torch.testing.assert_close(problem.gradient(batch_size=batch_size), gradient, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_the_gradient_is_that_of_finite_differences(loss: str) -> None:
    problem = Problem(small_problem(dtype=torch.float64).model, blobs(dtype=torch.float64), loss=loss)
    vector, gradient = problem.vector(), problem.gradient()
    # Central differences: error h^2 from the third derivative and 1e-16/h from rounding.
    h = 1e-5
    for index in range(0, len(vector), 7):
        step = torch.zeros_like(vector)
        step[index] = h
        slope = (problem.at(vector + step).risk() - problem.at(vector - step).risk()) / (2 * h)
        assert slope == pytest.approx(float(gradient[index]), abs=1e-8)


def test_the_risk_by_hand() -> None:
    model = linear(1, 1)
    model[1].weight.data.fill_(2.0)
    model[1].bias.data.fill_(1.0)
    problem = Problem(model, Data(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [5.0]])), loss="squared")
    # Outputs 1 and 3; residuals 1 and -2; mean of 1/2 and 2.
    assert problem.risk() == 1.25
    # dR/dw = mean(residual x) = -1, dR/db = mean(residual) = -1/2.
    assert problem.gradient().tolist() == [-1.0, -0.5]


def test_risk_and_gradient_of_other_data() -> None:
    problem = small_problem(dtype=torch.float64)
    one = problem.train.take(torch.tensor([3]))
    assert problem.risk(one) == pytest.approx(Problem(problem.model, one).risk(), rel=1e-14)
    torch.testing.assert_close(problem.gradient(one), Problem(problem.model, one).gradient())
    everything = torch.stack([problem.gradient(problem.train.take(torch.tensor([i]))) for i in range(60)]).mean(0)
    torch.testing.assert_close(problem.gradient(), everything, rtol=1e-10, atol=1e-14)


def test_they_are_taken_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    problem = Problem(model, blobs())
    assert problem.risk() == problem.risk()
    assert torch.equal(problem.gradient(), problem.gradient())
    assert model[1].num_batches_tracked == 0


def test_a_weight_without_influence_has_gradient_zero() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Parameter(torch.ones(2))
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(x)
            return y

    gradient = Problem(Idle(), blobs()).gradient()
    assert gradient[:2].tolist() == [0.0, 0.0]
    assert (gradient[2:] != 0).any()


def test_frozen_weights_are_left_out() -> None:
    model = mlp((3, 4, 3))
    model[1].weight.requires_grad_(False)
    problem = Problem(model, blobs())
    assert len(problem.vector()) == len(problem.gradient()) == 4 + 12 + 3


def test_at_and_vector() -> None:
    problem = small_problem()
    vector = problem.vector()
    moved = problem.at(vector + 1)
    torch.testing.assert_close(moved.vector(), vector + 1)
    assert torch.equal(problem.vector(), vector)
    assert moved.train is problem.train
    vector.zero_()  # a copy: the model does not follow
    assert not torch.equal(problem.vector(), vector)
    with pytest.raises(ValueError, match="the network has"):
        problem.at(vector[1:])


def test_copies_share_nothing() -> None:
    problem = small_problem()
    before = problem.vector()
    for model in (problem.copy(), problem.to("cpu").model):
        for value in model.parameters():
            nn.init.zeros_(value)
    assert torch.equal(problem.vector(), before)
    other = mlp((3, 2, 3))
    assert problem.with_model(other).model is other
    assert problem.to("cpu").test is not None


class Odd(nn.Module):
    """Returns what a function of the batch gives; has one parameter."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x * self.scale)


def broken(value: float) -> nn.Module:
    model = linear(3, 3)
    model[1].weight.data[0, 0] = value
    return model


REGRESSION = Data(torch.ones(4, 3), torch.ones(4, 2))


@pytest.mark.parametrize(
    ("model", "data", "loss", "message"),
    [
        (broken(torch.nan), blobs(), "cross_entropy", r"the weights 1\.weight hold NaN or inf; give weights of"),
        (broken(torch.inf), blobs(), "cross_entropy", r"the weights 1\.weight hold NaN or inf"),
        (linear(5, 3), blobs(), "cross_entropy", r"cannot take samples of shape \(n, 3\): "),
        (nn.Conv2d(1, 3, 2), blobs(), "cross_entropy", r"cannot take samples of shape \(n, 3\): "),
        (nn.Embedding(3, 3), blobs(), "cross_entropy", r"cannot take samples of shape \(n, 3\): "),
        (linear(3, 4), blobs(), "cross_entropy", r"returned shape \(2, 4\) for 2 samples of 3 classes; let it return"),
        (linear(3, 1), REGRESSION, "squared", r"returned shape \(2, 1\) for targets of shape \(2, 2\)"),
        (Odd(lambda x: (x, x)), blobs(), "cross_entropy", "the model returned tuple; let it return one tensor"),
        (Odd(lambda x: x.sum()), blobs(), "cross_entropy", r"returned shape \(\) for 2 samples; let its first"),
        (Odd(lambda x: x.T), blobs(), "cross_entropy", r"returned shape \(3, 2\) for 2 samples; let its first"),
        (Odd(lambda x: x + torch.rand(3)), blobs(), "cross_entropy", "another value when they are called again"),
        (Odd(lambda x: x / 0), blobs(), "cross_entropy", "loss cross_entropy is not finite at the given weights"),
        (linear(3, 3), blobs(), F.cross_entropy, r"loss cross_entropy returned \(\) for 2 samples; let it return one"),
        (linear(3, 3), blobs(), lambda o, t: 1.0, "returned float for 2 samples"),
        (linear(3, 3), blobs(), lambda o, t: o, r"returned \(2, 3\) for 2 samples"),
        (linear(3, 3), blobs(), lambda o, t: (o - t).square().sum(1), "cannot compare output .* with 3 classes"),
        (linear(3, 3), blobs(), lambda o, t: torch.rand(len(o)), "another value when they are called again"),
        (linear(3, 3), blobs(), lambda o, t: o.sum(1) * torch.inf, "is not finite at the given weights"),
        (linear(3, 2), Data(torch.ones(4, 3)), "squared", "there are no targets; name the target"),
        (linear(3, 2), REGRESSION, "cross_entropy2", "unknown loss"),
    ],
)
def test_what_is_refused(model: nn.Module, data: Data, loss: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Problem(model, data, loss=loss)
    assert "\n" not in str(caught.value)
    if "unknown" not in message:
        assert isinstance(caught.value, InputError)


def test_a_model_must_be_a_module() -> None:
    with pytest.raises(TypeError, match=r"model is function; give a torch\.nn\.Module"):
        Problem(lambda x: x, blobs())  # type: ignore[arg-type]


def test_one_sample_suffices() -> None:
    data = blobs().take(torch.tensor([0]))
    assert Problem(mlp((3, 1, 3)), data).risk() > 0


def test_the_users_model_is_untouched() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    model[1].eval()
    for value in model.parameters():
        value.grad = torch.full_like(value, 7.0)
    hook = model[0].register_forward_hook(lambda *_: None)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    random = torch.random.get_rng_state()
    problem = Problem(model, blobs(), blobs())
    problem.risk()
    problem.gradient()
    problem.at(problem.vector()).risk()
    problem.copy()
    assert problem.model is model
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value.grad, torch.full_like(value, 7.0)) for value in model.parameters())  # type: ignore[arg-type]
    assert hook.id in model[0]._forward_hooks
    assert torch.equal(random, torch.random.get_rng_state())


def test_a_refused_model_that_draws_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(InputError, match="called again"):
        Problem(Odd(lambda x: x + torch.rand(3)), blobs())
    assert torch.equal(before, torch.random.get_rng_state())


def test_gradients_are_given_inside_no_grad() -> None:
    problem = small_problem()
    with torch.no_grad():
        inside = problem.gradient()
    torch.testing.assert_close(inside, problem.gradient())
    assert not inside.requires_grad
