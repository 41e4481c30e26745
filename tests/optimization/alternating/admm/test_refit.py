import pytest
import torch
from problems import blobs, digits, small_problem
from threaded_group import together
from torch import nn

from whydeep.core import Data, InputError, Problem, errors
from whydeep.networks import linear, mlp
from whydeep.optimization.alternating.admm.admm import ADMM
from whydeep.optimization.alternating.admm.parts import Options, parts_of
from whydeep.optimization.alternating.admm.refit import refitted
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import SQUARED, target_rows
from whydeep.optimization.lagrangian.kkt import Lagrangian, State


def case(n=12, *, bias=True, ridge=0.3):
    data = blobs(n, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 5), nn.Sigmoid(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3, bias=bias))
    chain = Chain.of(model.double())
    chain.load([torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in chain.weights()])
    targets = target_rows(data.targets, 3)
    lagrangian = Lagrangian(chain, SQUARED, targets, ridges=(0.1, 0.2, ridge), betas=(1.0, 2.0, 3.0))
    return lagrangian, State.feasible(chain, chain.weights(), data.x)


@pytest.mark.parametrize("rows", [5, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_the_last_layer_is_ridge_regression_on_the_forward_pass(bias, rows):
    lagrangian, state = case(bias=bias)
    parts = parts_of(state, lagrangian.targets, rows)
    for part in parts:  # what the states are does not matter
        for v in part.states[1:]:
            v.zero_()
    found = refitted(lagrangian, parts, state.weights, Options())
    model = lagrangian.chain
    hidden = model.states(state.weights, state.states[0])[-2]
    a = torch.cat([hidden, torch.ones(len(hidden), 1, dtype=torch.float64)], 1) if bias else hidden
    matrix = a.T @ a + 0.3 * torch.eye(a.shape[1], dtype=torch.float64)
    expected = torch.linalg.solve(matrix, a.T @ lagrangian.targets).T
    width = a.shape[1]
    torch.testing.assert_close(found[-1][:, :width], expected, rtol=1e-9, atol=1e-9)
    assert all(one is other for one, other in zip(found[:-1], state.weights[:-1], strict=True))


def test_two_holders_of_samples_refit_what_one_does():
    lagrangian, state = case()
    parts = parts_of(state, lagrangian.targets, 7)  # shares of seven and five samples
    expected = refitted(lagrangian, parts, state.weights, Options())

    def holder(group):
        return refitted(lagrangian, [parts[group.rank]], state.weights, Options(group=group)), group.calls

    (first, calls), (second, _) = together(2, holder)
    torch.testing.assert_close(first, expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(first[-1], second[-1])
    assert calls == ["add", "hand out"]


def test_the_history_is_that_of_the_refitted_network_and_the_iterate_is_the_same():
    problem = small_problem("sigmoid", dtype=torch.float64)
    problem = Problem(problem.model, problem.train, loss="squared")
    plain, fitted = (ADMM(sweeps=6, ridge=1e-9, refit=refit).train(problem) for refit in (False, True))
    assert torch.equal(plain.history["kkt"], fitted.history["kkt"])
    assert float(plain.history["loss"][0]) == float(fitted.history["loss"][0])
    # With hardly a ridge the refitted output layer has the least risk that the hidden layers allow: the ridge's term is
    # 1e-9/2 ||W||^2 over 60 samples, below 1e-6 of a risk of 0.05 for weights up to 70.
    assert bool((fitted.history["loss"][1:] <= (1 + 1e-6) * plain.history["loss"][1:]).all())
    assert float(fitted.history["loss"][-1]) < 0.99 * float(plain.history["loss"][-1])
    assert float(fitted.history["loss"][-1]) == pytest.approx(problem.with_model(fitted.model).risk(), rel=1e-12)


def test_a_linear_network_is_solved_at_once():
    problem = Problem(linear(3, 3).double(), blobs(20, dtype=torch.float64), loss="squared")
    one, many = (ADMM(sweeps=sweeps, ridge=0.5, refit=True).train(problem).model for sweeps in (1, 300))
    for a, b in zip(one.parameters(), many.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_singular_gram_matrix_without_ridge_is_no_breakdown():
    x = torch.ones(4, 3, dtype=torch.float64)
    problem = Problem(linear(3, 2).double(), Data(x, torch.tensor([0, 1, 0, 1]), classes=2), loss="squared")
    training = ADMM(sweeps=2, ridge=0.0, refit=True).train(problem)
    # The best constant is 1/2 for both classes: 1/2 (1/4 + 1/4) a sample.
    assert float(training.history["loss"][-1]) == pytest.approx(0.25, rel=1e-6)


def test_other_losses_are_refused_in_a_sentence():
    with pytest.raises(InputError, match="squared loss only, not for cross_entropy"):
        ADMM(refit=True).train(small_problem("tanh"))


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3, 6])
def test_deep_networks_from_pytorchs_start_read_digits(depth):
    train, _ = digits()
    order = torch.arange(len(train))
    own, rest = train.take(order[order % 5 != 0]), train.take(order[::5])
    right = []
    for seed in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = mlp((64, *[100] * depth, 10), activation="sigmoid")
        training = ADMM(sweeps=40, refit=True).train(Problem(model, own, loss="squared"))
        right.append(1 - float(errors(training.model, rest).double().mean()))
    # Over folds .97 to .98; 288 digits know it to .01. A linear classifier has .94.
    assert sum(right) / 2 >= 0.955
