"""MSA and E-MSA: each iteration written out from its parts, the toy problem of the paper, and how they end."""

from __future__ import annotations

import pytest
import torch
from layered_problems import convolutional_problem, samples, seeded, sine_problem
from problems import small_problem
from torch import Tensor, nn

from whydeep.core import Data, InputError, Problem
from whydeep.core.training import Progress, Status
from whydeep.networks import mlp
from whydeep.optimization.hamiltonian import layers_of, maximise, trajectory
from whydeep.optimization.msa import EMSA, MSA


@pytest.mark.parametrize("batch", [None, 7, 25])
def test_a_training_written_out(batch: int | None) -> None:
    problem = small_problem("tanh", dtype=torch.float64)
    solver = EMSA(epochs=2, batch_size=batch, rho=0.7, ridge=0.01, inner=3)
    training = solver.train(problem, generator=seeded())
    model, generator, losses, gains = problem.copy(), seeded(), [problem.risk()], [0.0]
    layers = layers_of(model)
    x, targets = samples(problem)
    for _ in range(2):
        order = torch.randperm(len(x), generator=generator)
        rises = []
        for chosen in order.split(batch or len(x)):
            path = trajectory(layers, problem.per_sample, x[chosen], targets[chosen])
            rises.append(sum(maximise(layers, path, t, rho=0.7, ridge=0.01, inner=3) for t in range(3)))
        losses.append(problem.with_model(model).risk())
        gains.append(sum(rises) / len(rises))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, training.model.state_dict()[name], rtol=1e-12, atol=1e-13)
    assert training.history["loss"].tolist() == pytest.approx(losses, rel=1e-12)
    assert training.history["gain"].tolist() == pytest.approx(gains, rel=1e-9)
    size = sum(float(value.detach().square().sum()) for value in model.parameters())
    assert float(training.history["objective"][-1]) == pytest.approx(losses[-1] + 0.01 / 2 * size, rel=1e-12)


def test_a_small_step_gains_what_it_promises() -> None:
    # At a large rho the maximum is g^2/(2 rho c) above the start and the risk falls by g^2/(rho c), to first order:
    # half of the linear rise is what the penalty takes. So the fall is twice the gain.
    problem = small_problem("tanh", dtype=torch.float64)
    history = EMSA(epochs=1, batch_size=None, rho=1e4, inner=400).train(problem).history
    fall = float(history["loss"][0] - history["loss"][1])
    assert fall == pytest.approx(2 * float(history["gain"][1]), rel=0.01)


def test_emsa_falls_on_the_toy_problem() -> None:
    problem = sine_problem()
    history = EMSA(epochs=3, batch_size=100, rho=1.0).train(problem).history
    # Zero, the best constant, has the risk E sin^2 / 2 = 1/4; where SGD with step 0.1 still is after eight passes.
    assert history["loss"][0] > 1
    assert history["loss"][-1] < 0.1


@pytest.mark.parametrize("solver", [EMSA(epochs=4, batch_size=None), EMSA(epochs=3, batch_size=3)])
def test_emsa_trains_a_convolutional_network_in_evaluation_mode(solver: EMSA) -> None:
    problem = convolutional_problem()
    problem.model.train()  # batch normalisation and dropout must not be in training mode all the same
    training = solver.train(problem)
    assert training.history["loss"][-1] < 0.5 * training.history["loss"][0]
    for name, value in training.model.named_buffers():
        assert torch.equal(value, dict(problem.model.named_buffers())[name]), name
    assert all(module.training for module in training.model.modules())


def test_emsa_trains_a_transformer() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        model = nn.Sequential(nn.Linear(4, 8), block, nn.Flatten(), nn.Linear(24, 3))
    x = torch.randn(30, 3, 4, generator=seeded())
    history = EMSA(epochs=2).train(Problem(model, Data(x, torch.arange(30) % 3, classes=3))).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]


def test_msa_goes_to_the_maximum_of_a_linear_layer() -> None:
    # One linear layer, squared loss: H is linear in theta, so H - ridge/2 theta^2 has its maximum at
    # theta = 1/ridge 1/n sum p (x, 1), p = y - output. Two samples x = 1, -1, y = (2, 0), start 0:
    # weight = 1/n (2 * 1 + 0 * -1) / ridge = 1 / ridge, bias = 1/n (2 + 0) / ridge = 1 / ridge.
    model = nn.Sequential(nn.Linear(1, 1)).double()
    for value in model.parameters():
        nn.init.zeros_(value)
    x, y = torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([[2.0], [0.0]]).double()
    training = MSA(epochs=1, ridge=0.5, inner=50).train(Problem(model, Data(x, y), loss="squared"))
    assert [float(value.detach()) for value in training.model.parameters()] == pytest.approx([2.0, 2.0], rel=1e-9)
    # 2 (1/2 theta^2) ridge less than the slope times theta: 4 - 1/4 * 8 = 2.
    assert float(training.history["gain"][1]) == pytest.approx(2.0, rel=1e-9)


def test_msa_raises_the_risk_where_emsa_lowers_it() -> None:
    problem = small_problem("tanh", dtype=torch.float64)
    plain, extended = (solver.train(problem).history["loss"] for solver in (MSA(epochs=5), EMSA(epochs=5)))
    assert plain[1:].min() > 10 * plain[0]
    assert extended[-1] < 0.5 * extended[0]
    assert (extended.diff() < 0).all()


def test_an_explosion_is_a_divergence_and_is_taken_back() -> None:
    problem = small_problem("relu", dtype=torch.float64)
    training = MSA(epochs=5, ridge=0.0, inner=50).train(problem)
    assert training.outcome.diverged
    assert "exploded" in training.outcome.reason
    assert len(training.history["loss"]) == 1
    torch.testing.assert_close(training.model.state_dict(), problem.model.state_dict(), rtol=0, atol=0)


def test_a_start_without_a_finite_risk_is_a_divergence() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    nn.init.constant_(model[0].weight, 1e200)
    x = torch.tensor([[0.0], [0.0], [1e200]], dtype=torch.float64)  # the third overflows; two are looked at beforehand
    training = EMSA(epochs=2).train(Problem(model, Data(x, torch.zeros_like(x)), loss="squared"))
    assert training.outcome.diverged
    assert len(training.history["loss"]) == 0


def test_the_best_iterate_on_the_validation_split_is_returned() -> None:
    problem = small_problem("tanh", dtype=torch.float64)
    training = MSA(epochs=4, validation=0.25).train(problem, generator=seeded())
    held, _ = problem.train.split(15, seeded())
    assert int(training.history["validation"].argmin()) == 0  # plain MSA only gets worse here
    assert problem.with_model(training.model).risk(held) == pytest.approx(
        float(training.history["validation"].min()), rel=1e-12
    )


def test_a_callback_sees_every_iteration_and_stops() -> None:
    seen: list[Progress] = []

    def stop(progress: Progress) -> bool:
        seen.append(progress)
        return progress.done == 4

    problem = small_problem("tanh", dtype=torch.float64)
    training = EMSA(epochs=9, batch_size=25, inner=2).train(problem, callback=stop)  # 3 iterations a pass
    assert [progress.done for progress in seen] == [1, 2, 3, 4]
    assert seen[0].total == 27
    assert training.outcome.status is Status.INTERRUPTED
    assert len(training.history["loss"]) == 3


def test_one_sample_and_width_one() -> None:
    model = mlp((1, 1, 1), activation="tanh", init="xavier", generator=seeded()).double()
    one = Data(torch.tensor([[0.7]]).double(), torch.tensor([[0.3]]).double())
    history = EMSA(epochs=30).train(Problem(model, one, loss="squared")).history
    assert history["loss"][-1] < 1e-3 * history["loss"][0]


def test_a_frozen_layer_stays() -> None:
    problem = small_problem("tanh", dtype=torch.float64)
    first = problem.model[1]  # type: ignore[index]
    assert isinstance(first, nn.Linear)
    first.requires_grad_(False)
    training = EMSA(epochs=2).train(problem)
    found = training.model[1].weight  # type: ignore[index]
    assert isinstance(found, Tensor)
    assert torch.equal(found, first.weight)
    assert training.history["loss"][-1] < training.history["loss"][0]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: EMSA(rho=0.0), "rho=0"),
        (lambda: EMSA(inner=0), "inner=0"),
        (lambda: MSA(epochs=0), "epochs=0"),
        (lambda: MSA(batch_size=0), "batch_size=0"),
        (lambda: MSA(ridge=-1.0), "ridge=-1"),
        (lambda: MSA(validation=1.0), "validation=1"),
    ],
)
def test_bad_settings_are_refused(make: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()  # type: ignore[operator]


def test_a_model_without_layers_is_refused_in_the_solvers_name() -> None:
    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    problem = Problem(Whole(), Data(torch.zeros(2, 1), torch.zeros(2, 1)), loss="squared")
    with pytest.raises(InputError, match=r"MSA trains an nn\.Sequential"):
        MSA().train(problem)
