import math
import warnings
from dataclasses import replace

import pytest
import torch
from problems import blobs, digits, small_problem
from torch import nn

from whydeep.core import Data, InputError, Problem, Status
from whydeep.networks import linear, mlp
from whydeep.optimization.alternating.bcd.bcd import BCD, _Resynchronised
from whydeep.optimization.alternating.bcd.three import ThreeSplitting
from whydeep.optimization.alternating.bcd.two import TwoSplitting
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import LOSSES, target_rows
from whydeep.optimization.alternating.sweeps import SurrogateWarning
from whydeep.optimization.distributed.checkpoint import Checkpoint

ACTIVATIONS = ["identity", "leaky_relu", "relu", "sigmoid", "silu", "softplus", "tanh"]
CONSTANTS = {"gamma": 0.8, "rho": 1.7, "alpha": 0.6}
GRADED = {"grading": 0.3, "damping": 0.2}


def network(activation=nn.ReLU):
    """3-6-4-2-3 with a linear hidden layer, one layer without a bias, narrowing and widening."""
    torch_layers = [nn.Linear(3, 6), activation(), nn.Linear(6, 4, bias=False), activation(), nn.Linear(4, 2)]
    model = nn.Sequential(*torch_layers, nn.Linear(2, 3)).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64))
    return model


def iteration(activation=nn.ReLU, loss="squared", n=25, **options):
    data, chain = blobs(n, dtype=torch.float64), Chain.of(network(activation), solver="BCD")
    found = ThreeSplitting(
        chain,
        LOSSES[loss],
        x=data.x,
        targets=target_rows(data.targets, 3),
        weights=chain.weights(),
        **(CONSTANTS | options),
    )
    for _ in range(3):  # away from feasible
        found.sweep()
    return found


def ones(v):
    return torch.cat([v, torch.ones_like(v[:, :1])], 1)


def penalties(model, weights, preactivations, states, x, targets):
    """The objective as the lecture writes it, from the blocks alone."""
    total = model.loss.total(states[-1], targets)
    below, grade = x, model.grading ** (len(states) - 1)
    for layer, w, u, v in zip(model.chain.layers, weights, preactivations, states, strict=True):
        inputs = ones(below) if layer.bias else below
        total = total + grade * model.rho / 2 * (u - inputs @ w.T).square().sum()
        total = total + grade * model.gamma / 2 * (v - layer.activation.value_and_slope(u)[0]).square().sum()
        below, grade = v, grade / model.grading
    return total


def published_relu(a, b, g):
    """The two candidates, the cheaper of which is taken."""
    right, left = ((a + g * b) / (1 + g)).clamp(min=0), b.clamp(max=0)

    def cost(u):
        return (u.relu() - a) ** 2 + g * (u - b) ** 2

    return torch.where(cost(right) < cost(left), right, left)


def published_sweep(weights, preactivations, states, x, y, biases, constants):
    """One sweep in the published formulas with explicit inverses; samples are columns; ReLU but the last two."""
    gamma, rho, alpha = constants
    W, U, V = [None, *weights], [None, *(u.T for u in preactivations)], [x.T, *(v.T for v in states)]
    last = len(weights)

    def s(i, u):
        return u.relu() if i < last - 1 else u

    def inputs(i, v):
        return torch.cat([v, torch.ones_like(v[:1])]) if biases[i - 1] else v

    def eye(d):
        return torch.eye(d, dtype=torch.float64)

    inverse = torch.linalg.inv
    V[last] = (y.T + gamma * U[last] + alpha * V[last]) / (1 + gamma + alpha)
    U[last] = (gamma * V[last] + rho * W[last] @ inputs(last, V[last - 1])) / (gamma + rho)
    for i in range(last, 0, -1):
        A = inputs(i, V[i - 1])
        W[i] = (alpha * W[i] + rho * U[i] @ A.T) @ inverse(alpha * eye(len(A)) + rho * A @ A.T)
        if i == 1:
            break
        M, b = (W[i][:, :-1], W[i][:, -1:]) if biases[i - 1] else (W[i], 0.0)
        right = rho * M.T @ (U[i] - b) + gamma * s(i - 1, U[i - 1])
        V[i - 1] = inverse(rho * M.T @ M + gamma * eye(M.shape[1])) @ right
        forward, g = W[i - 1] @ inputs(i - 1, V[i - 2]), (rho + alpha) / gamma
        centre = (rho * forward + alpha * U[i - 1]) / (rho + alpha)
        step = (lambda a, b, g: (a + g * b) / (1 + g)) if i - 1 == last - 1 else published_relu
        U[i - 1] = step(V[i - 1], centre, g)
    return W[1:], [u.T for u in U[1:]], [v.T for v in V[1:]]


def test_sweeps_equal_the_published_formulas_written_out_directly():
    model = iteration()
    blocks = (list(model.weights()), [u.clone() for u in model.preactivations], [v.clone() for v in model.states])
    biases = [layer.bias for layer in model.chain.layers]
    for _ in range(6):
        model.sweep()
        blocks = published_sweep(*blocks, model.x, model.targets, biases, tuple(CONSTANTS.values()))
        for ours, theirs in zip((model.weights(), model.preactivations, model.states), blocks, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                # Condition numbers of some 1e3, six sweeps.
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.LeakyReLU])
@pytest.mark.parametrize("options", [{}, GRADED])
def test_every_block_minimises_and_lowers_the_objective(activation, loss, options):
    model = iteration(activation, loss, **options)
    last = len(model.chain.layers) - 1

    def value():
        return float(penalties(model, model.weights(), model.preactivations, model.states, model.x, model.targets))

    before = value()
    model._output_step()
    assert value() <= before
    for index in range(last, -1, -1):
        before, old = value(), model.weights()[index]
        model._weight_step(index)
        assert value() <= before
        new = model.weights()[index].clone().requires_grad_()
        weights = [*model.weights()[:index], new, *model.weights()[index + 1 :]]
        total = penalties(model, weights, model.preactivations, model.states, model.x, model.targets)
        below = model.states[index - 1] if index else model.x
        inputs = ones(below) if model.chain.layers[index].bias else below
        damped = model.damping * float(inputs.square().sum()) / inputs.shape[1]
        held = model.grading ** (last - index) * (model.alpha + model.rho * damped)
        (gradient,) = torch.autograd.grad(total + held / 2 * (new - old).square().sum(), new)
        assert float(gradient.abs().max()) < 1e-10  # terms of size 100, solved in float64
        if index:
            before, u = value(), model.preactivations[index - 1].clone()
            model._state_step(index)
            assert value() <= before
            v = model.states[index - 1].clone().requires_grad_()
            states = [*model.states[: index - 1], v, *model.states[index:]]
            earlier = [*model.preactivations[: index - 1], u, *model.preactivations[index:]]
            (gradient,) = torch.autograd.grad(
                penalties(model, model.weights(), earlier, states, model.x, model.targets), v
            )
            assert float(gradient.abs().max()) < 1e-10


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("options", [{}, GRADED])
def test_monitor_tells_objective_and_gradient(activation, options):
    model = iteration(activation, "cross_entropy", stationarity=True, **options)
    parts = (model.weights(), model.preactivations, model.states)
    blocks = [tuple(t.clone().requires_grad_() for t in part) for part in parts]
    total = penalties(model, *blocks, model.x, model.targets)
    gradients = torch.autograd.grad(total, [t for part in blocks for t in part])
    scale = math.sqrt(float(model.x.square().sum()) + 25 + 25)  # [X, 1, Y], one-hot
    values = model.monitor()
    assert values["objective"] == pytest.approx(float(total.detach()), rel=1e-12)
    expected = math.sqrt(sum(float(g.square().sum()) for g in gradients)) / scale
    assert values["kkt"] == pytest.approx(expected, rel=1e-10)
    assert expected > 1e-3
    if options:
        return
    # Without the loss, and with both penalties at 2, the objective is the square of the infeasibility.
    model.loss, model.gamma, model.rho = replace(model.loss, total=lambda v, y: torch.zeros(())), 2.0, 2.0
    assert values["feasibility"] == pytest.approx(math.sqrt(model.monitor()["objective"]) / scale, rel=1e-12)


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("options", [{}, GRADED])
def test_objective_never_increases_and_the_network_learns(activation, loss, options):
    start = small_problem(activation, dtype=torch.float64)
    problem = Problem(start.model, start.train, start.test, loss=loss)
    training = BCD(sweeps=60, alpha=0.5, **options).train(problem)
    history = training.history
    assert float(history["objective"][0]) == pytest.approx(60 * problem.risk(), rel=1e-12)
    # The objective is a sum of some 1e3 terms of rounding 1e-16 each.
    assert bool((history["objective"].diff() <= 1e-12 * history["objective"][:-1]).all())
    assert float(history["loss"][-1]) < 0.8 * float(history["loss"][0])
    assert float(history["loss"][-1]) == pytest.approx(problem.with_model(training.model).risk(), rel=1e-12)
    assert float(history["feasibility"][0]) == 0
    assert training.outcome.status is Status.BUDGET_SPENT
    assert "kkt" not in history


# With penalties this far apart the objective falls without the network, as the warning says.
@pytest.mark.filterwarnings("ignore::whydeep.optimization.alternating.sweeps.SurrogateWarning")
@pytest.mark.parametrize("gamma", [1e-3, 1e3])
@pytest.mark.parametrize("rho", [1e-3, 1e3])
def test_objective_never_increases_at_extreme_penalties(gamma, rho):
    for activation in ("relu", "tanh"):
        history = (
            BCD(sweeps=20, gamma=gamma, rho=rho, alpha=1e-3)
            .train(small_problem(activation, dtype=torch.float64))
            .history
        )
        # A thousandfold penalty amplifies the rounding of the gaps.
        assert bool((history["objective"].diff() <= 1e-9 * history["objective"][:-1]).all())


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_two_splitting_never_increases_its_objective(activation, loss):
    start = small_problem(activation, dtype=torch.float64)
    problem = Problem(start.model, start.train, start.test, loss=loss)
    training = BCD(sweeps=40, splitting="two", ridge=1e-3).train(problem)
    history = training.history
    norm = sum(float(value.detach().square().sum()) for value in problem.model.parameters())
    assert float(history["objective"][0]) == pytest.approx(60 * problem.risk() + 1e-3 / 2 * norm, rel=1e-12)
    assert bool((history["objective"].diff() <= 1e-12 * history["objective"][:-1]).all())
    assert float(history["objective"][-1]) < 0.7 * float(history["objective"][0])
    assert float(history["feasibility"][0]) == 0
    assert float(history["loss"][-1]) < float(history["loss"][0])


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.ReLU])
def test_two_splitting_tells_objective_and_gradient(activation):
    data, chain = blobs(25, dtype=torch.float64), Chain.of(network(activation), solver="BCD")
    targets, gamma, ridge = target_rows(data.targets, 3), 0.8, 0.3
    options = {"gamma": gamma, "ridge": ridge, "stationarity": True}
    model = TwoSplitting(chain, LOSSES["cross_entropy"], x=data.x, targets=targets, weights=chain.weights(), **options)
    for _ in range(3):
        model.sweep()
    assert all(float(multiplier.abs().max()) == 0 for multiplier in model.part.multipliers)
    weights = [w.clone().requires_grad_() for w in model.weights()]
    states = [v.clone().requires_grad_() for v in model.part.states[1:]]
    total, below = LOSSES["cross_entropy"].total(states[-1], targets), data.x
    for layer, w, v in zip(chain.layers, weights, states, strict=True):
        gap = v - layer.activation.value_and_slope((ones(below) if layer.bias else below) @ w.T)[0]
        total = total + gamma / 2 * gap.square().sum() + ridge / 2 * w.square().sum()
        below = v
    gradients = torch.autograd.grad(total, [*weights, *states])
    values, scale = model.monitor(), math.sqrt(float(data.x.square().sum()) + 25 + 25)
    assert values["objective"] == pytest.approx(float(total.detach()), rel=1e-12)
    expected = math.sqrt(sum(float(g.square().sum()) for g in gradients)) / scale
    assert values["kkt"] == pytest.approx(expected, rel=1e-10)
    assert model.restart(model.weights())
    assert model.lagrangian.ridges[0] == pytest.approx(10 * ridge)
    assert model.monitor()["feasibility"] == 0


@pytest.mark.parametrize("splitting", ["three", "two"])
def test_resynchronised_states_are_the_forward_pass(splitting):
    problem = small_problem("relu", dtype=torch.float64)
    history = BCD(sweeps=6, alpha=0.5, splitting=splitting, ridge=0.0, resynchronise=3).train(problem).history
    assert [float(value) == 0 for value in history["feasibility"]] == [True, False, False, True, False, False, True]
    # There the objective is the network's own loss, summed.
    for index in (0, 3, 6):
        assert float(history["objective"][index]) == pytest.approx(60 * float(history["loss"][index]), rel=1e-12)


def ten_layers(start):
    """64-10x30-10; "identity": hidden squares are identities, "he": all weights are random."""
    model = mlp((64, *[30] * 10, 10), init="he", generator=torch.Generator().manual_seed(0)).double()
    if start == "identity":
        for layer in [module for module in model if isinstance(module, nn.Linear)][1:-1]:
            nn.init.eye_(layer.weight)
    train, _ = digits(400, dtype=torch.float64)
    return Problem(model, train, loss="squared")


def test_graded_penalties_reach_the_first_of_ten_layers():
    problem = ten_layers("identity")
    first = Chain.of(problem.model).weights()[0]

    def moved(training):
        return float((Chain.of(training.model).weights()[0] - first).norm() / first.norm())

    equal = BCD(sweeps=20, alpha=0.1, resynchronise=1).train(problem)
    graded = BCD(sweeps=20, gamma=0.1, rho=0.003, alpha=0.001, grading=1e-4, damping=0.1, resynchronise=1).train(
        problem
    )
    # A quarter at best in each of nine layers, 4^-9 = 4e-6, against shares near one.
    assert moved(equal) < 1e-5 < 0.1 < moved(graded)
    assert float(graded.history["error"][-1]) < 0.05 < 0.1 < float(equal.history["error"][-1])


@pytest.mark.parametrize("start", ["identity", "he"])
@pytest.mark.parametrize("splitting", ["three", "two"])
def test_the_loss_never_rises_from_one_forward_pass_to_the_next(start, splitting):
    # From random weights a grading so steep asks for a thousand times too much, and whole steps would end above 50.
    settings = {"gamma": 0.1, "rho": 0.003, "alpha": 0.001, "grading": 1e-4, "damping": 0.1}
    history = (
        BCD(sweeps=8, splitting=splitting, ridge=0.0, resynchronise=2, **settings).train(ten_layers(start)).history
    )
    loss = history["loss"][::2]
    assert bool((loss.diff() <= 1e-12 * loss[:-1]).all())
    assert float(loss[-1]) < float(loss[0])
    assert history["feasibility"][::2].tolist() == [0] * 5


def test_a_direction_in_vain_makes_it_start_again_more_cautiously():
    model = iteration()
    model.start(model.weights())
    run = _Resynchronised(model, 1)
    kept, run.value = run.kept, -1.0  # no loss is so low
    run.sweep()
    assert model.alpha == pytest.approx(10 * CONSTANTS["alpha"])
    assert all(torch.equal(one, other) for one, other in zip(model.weights(), kept, strict=True))
    assert run.value == pytest.approx(model.misfit())
    before = run.value
    run.sweep()
    assert run.value <= before


def test_a_resynchronised_run_goes_on_as_if_it_had_not_been_cut(tmp_path):
    problem = small_problem("relu", dtype=torch.float64)
    kept = Checkpoint(tmp_path / "run.safetensors", every=1)
    settings = {"alpha": 0.5, "resynchronise": 1, "validation": 0.2}

    def train(sweeps, **options):
        return BCD(sweeps=sweeps, **settings, **options).train(problem, generator=torch.Generator().manual_seed(0))

    whole = train(6)
    train(2, checkpoint=kept)
    cut = train(6, checkpoint=replace(kept, resume=True))
    for name in ("loss", "validation", "objective"):
        torch.testing.assert_close(cut.history[name], whole.history[name], rtol=1e-12, atol=0)
    for one, other in zip(cut.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_it_converges_where_its_gradient_vanishes():
    # The gradient falls like 1/k here, as the theory of the method promises at least.
    training = BCD(sweeps=300, alpha=0.1, tolerance=5e-3).train(small_problem("tanh", dtype=torch.float64))
    assert training.outcome.converged
    kkt = training.history["kkt"]
    assert 0 < float(kkt[-1]) <= 5e-3 < float(kkt[-2])
    assert float(kkt[100]) < 0.2 * float(kkt[20])


def test_one_linear_layer_converges_to_least_squares():
    data = blobs(20, dtype=torch.float64)
    problem = Problem(linear(3, 3).double(), data, loss="squared")
    training = BCD(sweeps=2000, alpha=0.1).train(problem)
    expected = torch.linalg.lstsq(ones(data.x), target_rows(data.targets, 3)).solution.T
    torch.testing.assert_close(Chain.of(training.model).weights()[0], expected, rtol=1e-8, atol=1e-8)


def test_single_precision_states_follow_double():
    train, test = digits(400)
    model = mlp((64, 40, 30, 10), init="he", generator=torch.Generator().manual_seed(0))
    problem = Problem(model, train, test)
    single, double = (BCD(sweeps=10, dtype=dtype).train(problem).history["loss"] for dtype in (None, torch.float64))
    torch.testing.assert_close(single, double, rtol=1e-3, atol=0)  # ten sweeps enlarge rounding of 1e-7
    assert not torch.equal(single, double)


def test_a_surrogate_that_falls_alone_is_warned_of():
    # Ten layers from tiny weights: the last layers fit the targets, and nothing of it reaches the network.
    train, _ = digits(300, dtype=torch.float64)
    model = mlp((64, *[20] * 10, 10), activation="relu").double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.01 * torch.randn(value.shape, generator=generator) if value.ndim == 2 else 0 * value + 0.1)
    with pytest.warns(SurrogateWarning, match="the objective fell"):
        training = BCD(sweeps=20, alpha=1.0).train(Problem(model, train, loss="squared"))
    assert "own loss only" in training.outcome.reason
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BCD(sweeps=20).train(small_problem("relu", dtype=torch.float64))


def test_breakdown_is_an_outcome_and_the_model_stays():
    x = torch.ones(4, 3, dtype=torch.float64)  # rank one
    problem = Problem(linear(3, 2).double(), Data(x, torch.tensor([0, 1, 0, 1]), classes=2), loss="squared")
    with pytest.raises(ValueError, match="alpha=0"):
        BCD(alpha=0.0)
    training = BCD(sweeps=5, alpha=1e-30).train(problem)
    assert training.outcome.diverged
    assert "positive definite" in training.outcome.reason
    for one, other in zip(training.model.parameters(), problem.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_restart_is_more_cautious():
    model = iteration(**GRADED)
    weights = model.weights()
    assert model.restart(weights)
    assert model.alpha == pytest.approx(10 * CONSTANTS["alpha"])
    assert model.damping == pytest.approx(10 * GRADED["damping"])
    assert model.monitor()["feasibility"] == 0


@pytest.mark.parametrize("n", [1, 2])
def test_few_samples_and_width_one(n):
    data = Data(torch.eye(n, 3, dtype=torch.float64), torch.arange(n), classes=2)
    training = BCD(sweeps=5).train(Problem(mlp((3, 1, 1, 2), activation="relu").double(), data))
    assert not training.outcome.diverged
    assert bool(torch.isfinite(training.history["objective"]).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sweeps": 0}, "sweeps=0"),
        ({"gamma": 0.0}, "gamma=0"),
        ({"rho": math.inf}, "rho=inf"),
        ({"alpha": -1.0}, "alpha=-1"),
        ({"validation": 1.0}, "validation=1"),
        ({"ridge": -1.0}, "ridge=-1"),
        ({"grading": 0.0}, "grading=0"),
        ({"damping": -1.0}, "damping=-1"),
        ({"checkpoint": "here"}, "checkpoint='here'"),
        ({"resynchronise": -1}, "resynchronise=-1"),
        ({"splitting": "four"}, "three, two"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BCD(**options)


def test_what_it_cannot_train_is_refused():
    with pytest.raises(InputError, match=r"BCD cannot train through model\[1\], a Dropout"):
        BCD().train(Problem(nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 3)), blobs()))
