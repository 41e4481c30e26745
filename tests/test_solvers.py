"""What every solver must do, whatever its method."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from problems import small_problem

from whydeep.core.problem import Problem
from whydeep.core.training import Progress, Solver, Status
from whydeep.optimization import (
    ADMM,
    BCD,
    DLADMM,
    EMSA,
    MSA,
    SGLD,
    Backprop,
    EntropySGD,
    Parle,
    SaddleFreeNewton,
    StochasticADMM,
    StochasticBCD,
    TaylorADMM,
)

# Each: a short training, how many passes it makes, and a setting of it that must diverge.
SOLVERS: dict[str, tuple[Callable[[], Solver], int, Callable[[], Solver] | None]] = {
    "adam": (lambda: Backprop(torch.optim.Adam, lr=1e-2, epochs=3, batch_size=16), 3, None),
    "sgd": (
        lambda: Backprop(torch.optim.SGD, lr=1e-2, epochs=3, batch_size=16, options={"momentum": 0.9}),
        3,
        lambda: Backprop(torch.optim.SGD, lr=1e300, epochs=3),
    ),
    "lbfgs": (lambda: Backprop(torch.optim.LBFGS, lr=1e-1, epochs=3, batch_size=None), 3, None),
    "sgld": (
        lambda: Backprop(SGLD, lr=1e-3, epochs=3, options={"beta": 1e3}),
        3,
        lambda: Backprop(SGLD, lr=1e300, epochs=3, options={"beta": 1e3}),
    ),
    "admm": (lambda: ADMM(sweeps=3), 3, None),
    "bcd": (lambda: BCD(sweeps=3, alpha=0.1), 3, None),
    "dladmm": (lambda: DLADMM(sweeps=3), 3, None),
    "entropy_sgd": (
        lambda: Backprop(EntropySGD, lr=1.0, epochs=3, batch_size=16, options={"inner": 5}),
        3,
        lambda: Backprop(EntropySGD, lr=1.0, epochs=3, options={"inner_lr": 1e300}),
    ),
    "emsa": (lambda: EMSA(epochs=3, batch_size=16), 3, None),
    # One iteration of L-BFGS is too short to leave the range where a Hamiltonian tells of the risk.
    "msa": (lambda: MSA(epochs=3, ridge=0.2, inner=1), 3, lambda: MSA(epochs=3, ridge=0.0, inner=50)),
    "parle": (
        lambda: Parle(replicas=2, epochs=3, batch_size=16, inner=2),
        3,
        lambda: Parle(replicas=2, epochs=3, inner_lr=1e300),
    ),
    "saddle_free_newton": (lambda: SaddleFreeNewton(steps=3), 3, None),
    "stochastic_admm": (
        lambda: StochasticADMM(epochs=3, batch_size=16),
        3,
        lambda: StochasticADMM(epochs=3, tau=1e300, normed=False),
    ),
    "stochastic_bcd": (lambda: StochasticBCD(epochs=3, batch_size=16), 3, None),
    # Three sweeps from random states do not reach the network yet.
    "taylor": (lambda: TaylorADMM(sweeps=3, start="forward"), 3, None),
}


@pytest.fixture(params=SOLVERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def problem() -> Problem:
    return small_problem("tanh", dtype=torch.float64)


def state(problem: Problem) -> list[object]:
    """Everything of the user's model that a training could touch, and the global generator."""
    model = problem.model
    return [
        {key: value.clone() for key, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [value.grad for value in model.parameters()],
        [value.requires_grad for value in model.parameters()],
        torch.random.get_rng_state(),
    ]


def test_same_seed_same_result(name: str, problem: Problem) -> None:
    first, second = (SOLVERS[name][0]().train(problem, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    for key, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key
    for key, values in first.history.items():
        if key != "seconds":
            assert torch.equal(values, second.history[key]), key


def test_the_users_model_is_untouched(name: str, problem: Problem) -> None:
    problem.model[1].eval()  # type: ignore[index]  # modes differ by submodule
    before = copy.deepcopy(state(problem))
    training = SOLVERS[name][0]().train(problem)
    torch.testing.assert_close(state(problem), before, rtol=0, atol=0)
    assert training.model is not problem.model
    assert [m.training for m in training.model.modules()] == [m.training for m in problem.model.modules()]
    assert all(value.grad is None for value in training.model.parameters())


def test_the_history_has_one_entry_a_pass_and_the_start(name: str, problem: Problem) -> None:
    solver, passes, _ = SOLVERS[name]
    history = solver().train(problem).history
    assert {"loss", "seconds", "error"} <= set(history)
    assert {len(values) for values in history.values()} == {1 + passes}
    assert history["loss"][0] == pytest.approx(problem.risk(), rel=1e-12)
    assert history["seconds"][0] == 0
    assert (history["seconds"].diff() > 0).all()


def test_the_history_ends_at_the_returned_model(name: str, problem: Problem) -> None:
    training = SOLVERS[name][0]().train(problem)
    assert training.history["loss"][-1] == pytest.approx(problem.with_model(training.model).risk(), rel=1e-12)


def test_the_risk_falls(name: str, problem: Problem) -> None:
    loss = SOLVERS[name][0]().train(problem).history["loss"]
    assert loss[-1] < loss[0]


def test_divergence_is_an_outcome(name: str, problem: Problem) -> None:
    diverging = SOLVERS[name][2]
    if diverging is None:
        pytest.skip("no setting of this solver is known to diverge")
    training = diverging().train(small_problem("relu", dtype=torch.float64))  # tanh would keep it finite
    assert training.outcome.diverged
    assert training.outcome.reason
    assert not training.outcome.converged
    for values in (*training.model.state_dict().values(), *training.history.values()):
        assert torch.isfinite(values).all()


def test_a_callback_stops_it(name: str, problem: Problem) -> None:
    seen: list[Progress] = []

    def stop(progress: Progress) -> bool:
        seen.append(progress)
        return True

    training = SOLVERS[name][0]().train(problem, callback=stop)
    assert training.outcome.status is Status.INTERRUPTED
    assert [progress.done for progress in seen] == [1]
    assert seen[0].total >= 1


def test_it_is_a_solver(name: str) -> None:
    solver = SOLVERS[name][0]()
    assert isinstance(solver, Solver)
    assert solver == SOLVERS[name][0]()
    with pytest.raises(AttributeError):
        solver.sweeps = 5  # type: ignore[attr-defined]  # frozen
