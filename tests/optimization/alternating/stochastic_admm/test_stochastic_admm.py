"""The stochastic solver against its equations written out with autograd, and what the layer norm promises."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from problems import blobs, digits, small_problem
from torch import Tensor, nn

from whydeep.core import Data, Problem
from whydeep.core.errors import InputError
from whydeep.core.training import Status
from whydeep.networks import mlp
from whydeep.optimization import Backprop
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.stochastic_admm.rescaled_start import rescaled, spreads
from whydeep.optimization.alternating.stochastic_admm.stochastic_admm import StochasticADMM

MODULES = (nn.Identity, nn.LeakyReLU, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh)


def naive(problem: Problem, solver: StochasticADMM) -> nn.Sequential:
    """The documented equations for full batches, with autograd on the model and a plain inverse at every step.

    The data layer is a layer like the others here: nothing is whitened.
    """
    assert isinstance(problem.train.x, Tensor)
    assert solver.gram_every == 1
    model = problem.copy()
    assert isinstance(model, nn.Sequential)
    linears = [module for module in model if isinstance(module, nn.Linear)]
    n = len(problem.train)
    tau = solver.tau if solver.tau is not None else 0.35 / math.sqrt(len(linears))
    moments: list[tuple[Tensor, Tensor]] = []
    averages = [(torch.zeros_like(one.weight), torch.zeros_like(one.weight[:, 0])) for one in linears]
    largest = 0.0
    for epoch in range(solver.epochs):
        inputs, signals, value = [], [], problem.train.x
        for module in model:
            if isinstance(module, nn.Linear):
                inputs.append(value.detach())
            value = module(value)
            if isinstance(module, nn.Linear):
                signals.append(value)
        gradients = torch.autograd.grad(
            problem.per_sample(value, problem.train.targets).sum(), signals, retain_graph=True
        )
        ridge = 1e-5 if solver.output_ridge is None else solver.output_ridge
        largest = max(largest, float(gradients[-1].square().mean().sqrt()))
        seeds = gradients[-1] + ridge * largest * value.detach()
        gradients = torch.autograd.grad(value, signals, seeds, retain_graph=True)
        saturating = any(isinstance(module, nn.Sigmoid | nn.Tanh) for module in model)
        damping = solver.state_damping or (10.0 if saturating else math.inf)
        if math.isfinite(damping):
            gradients = by_state_steps(linears, inputs, signals, gradients[-1], damping)
        rate = (1 + math.cos(math.pi * epoch / solver.epochs)) / 2 if solver.schedule == "cosine" else 1.0
        for index, (linear, below, gradient) in enumerate(zip(linears, inputs, gradients, strict=True)):
            mean = below.mean(0) if linear.bias is not None else torch.zeros_like(below[0])
            second = (below - mean).T @ (below - mean) / n
            if epoch and index:
                old_mean, old = moments[index]
                r = solver.gram_decay
                # Moments about zero mix linearly; the mixture's covariance follows from them.
                raw = r * (old + torch.outer(old_mean, old_mean)) + (1 - r) * (second + torch.outer(mean, mean))
                mean = r * old_mean + (1 - r) * mean
                second = raw - torch.outer(mean, mean)
            moments[index : index + 1] = [(mean, second)]
            shift = (solver.damping if index else solver.data_damping) * second.diagonal().mean()
            shift = shift + (solver.floor * below.square().mean() if index else 0)
            if solver.normed:
                gradient = gradient / gradient.square().mean().sqrt()
            slope = gradient.T @ (below - mean) / n
            step = slope @ torch.linalg.inv(second + shift * torch.eye(len(second), dtype=second.dtype))
            scale = tau / ((step * slope).sum() / len(slope)).sqrt() if solver.normed else tau
            m = solver.momentum
            now = (scale * step, tau * gradient.mean(0))
            averages[index] = tuple(m * old + (1 - m) * new for old, new in zip(averages[index], now, strict=True))
            # Nesterov's form: the weights stand where momentum will have led.
            weight_step, bias_step = (m * old + (1 - m) * new for old, new in zip(averages[index], now, strict=True))
            with torch.no_grad():
                if index:
                    linear.weight *= 1 - rate**2 * solver.forgetting
                linear.weight -= rate * weight_step
                if linear.bias is not None:
                    linear.bias -= rate * (bias_step - weight_step @ mean)
    return model


def by_state_steps(
    linears: list[nn.Linear], inputs: list[Tensor], signals: list[Tensor], gradient: Tensor, damping: float
) -> tuple[Tensor, ...]:
    """What the V-steps leave for each layer: an augmented least-squares problem a layer, by LAPACK."""
    found = [gradient]
    for index in range(len(linears) - 1, 0, -1):
        weight = linears[index].weight.detach()
        delta = damping * weight.square().sum() / min(weight.shape)
        tall = torch.cat([weight, delta.sqrt() * torch.eye(weight.shape[1], dtype=weight.dtype)])
        wanted = torch.cat([found[0], torch.zeros(len(gradient), weight.shape[1], dtype=weight.dtype)], 1)
        change = torch.linalg.lstsq(tall, wanted.T).solution.T
        states = torch.autograd.grad(signals[index].sum(), signals[index - 1], retain_graph=True)[0]
        slopes = states / weight.sum(0)  # d sum(U_i) / dU_{i-1} is the column sum of W_i times the slope
        found.insert(0, delta * change * slopes)
    return tuple(found)


def chain(module: type[nn.Module], *, bias: bool = True) -> nn.Sequential:
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(
        nn.Linear(3, 5, bias=bias), module(), nn.Linear(5, 4, bias=bias), module(), nn.Linear(4, 3, bias=bias)
    ).double()
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0, 0.8, generator=generator)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wrong(model: nn.Module, data: Data) -> float:
    assert isinstance(data.x, Tensor)
    with torch.no_grad():
        return float((model(data.x).argmax(1) != data.targets).double().mean())


def agree(problem: Problem, solver: StochasticADMM) -> None:
    found = solver.train(problem).model
    # Two routes in float64, with systems of condition below 1e4, and a square root of differences at most.
    torch.testing.assert_close(
        list(found.parameters()), list(naive(problem, solver).parameters()), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("loss", ["squared", "cross_entropy", "hinge"])
@pytest.mark.parametrize("module", MODULES)
def test_one_plain_step_is_the_preconditioned_gradient(module: type[nn.Module], loss: str) -> None:
    problem = Problem(chain(module), blobs(dtype=torch.float64), loss=loss)
    agree(
        problem,
        StochasticADMM(
            epochs=1,
            tau=0.1,  # of 1.0, the step with the squared loss on SiLU blows up, and the start would be returned
            normed=False,
            damping=1.0,
            momentum=0.0,
            forgetting=0.0,
            state_damping=math.inf,
            output_ridge=0.0,
            gram_every=1,
        ),
    )


@pytest.mark.parametrize(
    ("normed", "bias", "schedule"), list(itertools.product([True, False], [True, False], ["cosine", "constant"]))
)
def test_several_steps_are_the_equations_written_out(normed: bool, bias: bool, schedule: str) -> None:
    problem = Problem(chain(nn.Tanh, bias=bias), blobs(dtype=torch.float64))
    solver = StochasticADMM(
        epochs=4,
        tau=0.3,
        normed=normed,
        damping=0.4,
        data_damping=0.7,
        floor=0.2,
        momentum=0.6,
        forgetting=0.1,
        gram_decay=0.7,
        gram_every=1,
        schedule=schedule,
        output_ridge=0.05,
    )
    agree(problem, solver)


@pytest.mark.parametrize(("normed", "damping"), [(True, 0.5), (False, 0.5), (True, 30.0)])
def test_multipliers_from_state_steps_are_least_squares_solutions(normed: bool, damping: float) -> None:
    problem = Problem(chain(nn.Tanh), blobs(dtype=torch.float64))
    agree(
        problem,
        StochasticADMM(
            epochs=4, tau=0.3, normed=normed, damping=0.4, forgetting=0.1, state_damping=damping, gram_every=1
        ),
    )


def test_the_default_tau_depends_on_the_number_of_layers() -> None:
    # The reference takes 0.35 / sqrt(3) for these three layers; four would give a step 13 % shorter.
    solver = StochasticADMM(epochs=3, gram_every=1, damping=1.0, forgetting=0.003)
    agree(Problem(chain(nn.Sigmoid), blobs(dtype=torch.float64)), solver)


def test_the_reference_sees_every_constant() -> None:
    # The comparison above could not fail if a constant had no effect on it.
    problem = Problem(chain(nn.Tanh), blobs(dtype=torch.float64))
    base = {"epochs": 4, "tau": 0.3, "gram_every": 1, "momentum": 0.6, "forgetting": 0.1}
    expected = StochasticADMM(**base).train(problem).model[2].weight  # type: ignore[arg-type, index]
    for key, value in {
        "tau": 0.31, "damping": 1.1, "data_damping": 11.0, "floor": 0.2, "momentum": 0.61, "forgetting": 0.11,
        "gram_decay": 0.81, "schedule": "constant", "normed": False, "state_damping": 11.0,
        "output_ridge": 1e-2,
    }.items():  # fmt: skip
        other = StochasticADMM(**base | {key: value}).train(problem).model[2].weight  # type: ignore[arg-type, index]
        assert (other - expected).abs().max() > 1e-5, key


def test_a_layers_preactivations_change_by_tau_where_damping_is_small() -> None:
    # <D, G'A/m> = tr D (C + delta I) D', and with delta -> 0 that is the squared change of the centred U: of a linear
    # network with a square loss, whose only layer is the data layer.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, dtype=torch.float64, generator=generator)
    y = torch.randn(200, 2, dtype=torch.float64, generator=generator)
    problem = Problem(nn.Linear(4, 2).double(), Data(x, y), loss="squared")
    problem = problem.with_model(nn.Sequential(nn.Linear(4, 2)).double())
    solver = StochasticADMM(epochs=1, tau=0.3, momentum=0.0, forgetting=0.0, data_damping=1e-12)
    change = (solver.train(problem).model(x) - problem.model(x)).detach()
    centred = change - change.mean(0)
    assert float(centred.square().mean().sqrt()) == pytest.approx(0.3, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e20])
def test_the_size_of_the_gradient_does_not_matter(scale: float) -> None:
    problem = small_problem("tanh", dtype=torch.float64)

    def scaled(output: Tensor, target: Tensor) -> Tensor:
        return scale * problem.per_sample(output, target)

    solver = StochasticADMM(epochs=3, batch_size=20)
    expected = solver.train(problem).model
    found = solver.train(Problem(problem.model, problem.train, loss=scaled)).model
    torch.testing.assert_close(list(found.parameters()), list(expected.parameters()), rtol=1e-9, atol=1e-11)


def test_ten_sigmoid_layers_train_from_the_default_start_where_adam_does_not_move() -> None:
    data, test = digits()
    generator = torch.Generator().manual_seed(0)
    torch_start = mlp([64, *[60] * 10, 10], activation="sigmoid")
    with torch.no_grad():  # PyTorch's own distribution, drawn from an explicit generator
        for layer in torch_start:
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
    problem = Problem(torch_start, data, test)
    history = StochasticADMM(epochs=30, batch_size=100).train(problem).history
    adam = Backprop(torch.optim.Adam, lr=3e-3, epochs=10, batch_size=100, schedule="cosine").train(problem).history
    assert history["error"][-1] < 0.1
    assert adam["error"][-1] > 0.7


def test_the_start_decides_on_damping_and_forgetting() -> None:
    x, y = torch.tensor([[-1.0], [1.0]]).double(), torch.tensor([0, 1])
    model = mlp([1, 1, 1, 2], activation="identity").double()
    with torch.no_grad():
        for module, weight in zip([m for m in model if isinstance(m, nn.Linear)], (1.0, 0.02, 1.0), strict=True):
            module.weight.fill_(weight)
            module.bias.fill_(3.0)
    solver, seen = StochasticADMM(), Chain.of(model)
    # The pre-activations are 3 + x and 0.02 (3 + x) + 3, with standard deviations 1 and 0.02: above and below 0.01.
    assert spreads(seen, x) == pytest.approx((1.0, 0.02), rel=1e-12)
    assert (solver.decided(seen, x, classes=True).damping, solver.decided(seen, x, classes=True).forgetting) == (
        1.0,
        0.003,
    )
    with torch.no_grad():
        model[3].weight.fill_(0.005)
    decided = solver.decided(Chain.of(model), x, classes=True)
    assert (decided.damping, decided.forgetting) == (0.3, 0.03)
    assert decided.state_damping == math.inf
    for names, damping in {("sigmoid", "tanh"): 10.0, ("sigmoid", "relu"): math.inf}.items():
        one, other = (mlp([1, 2, 2], activation=name)[2] for name in names)
        mixed = Chain.of(nn.Sequential(nn.Linear(1, 2), one, nn.Linear(2, 2), other, nn.Linear(2, 2)))
        assert solver.decided(mixed, x, classes=True).state_damping == damping
    given = StochasticADMM(damping=0.0, forgetting=0.2).decided(Chain.of(model), x, classes=True)
    assert (given.damping, given.forgetting) == (0.0, 0.2)
    assert decided.output_ridge == 1e-5
    assert solver.decided(seen, x, classes=False).output_ridge == 0
    # And training uses what was decided.
    problem = Problem(model, Data(x, y, classes=2))
    one, other = (
        s.train(problem, generator=torch.Generator().manual_seed(0)).history["loss"] for s in (solver, decided)
    )
    assert torch.equal(one, other)


def test_fifty_layers_train_from_the_rescaled_start() -> None:
    data, test = digits()
    generator = torch.Generator().manual_seed(0)
    start = mlp([64, *[60] * 50, 10], activation="sigmoid", init="orthogonal", gain=4.0, generator=generator)
    problem = rescaled(Problem(start, data, test), spread=0.5)
    training = StochasticADMM(epochs=15, batch_size=200, gram_every=2).train(problem)
    assert training.history["error"][-1] < 0.2


def test_a_long_run_on_separable_classes_stays_where_it_is() -> None:
    data, test = digits()
    start = mlp([64, 100, 100, 100, 10], activation="sigmoid", init="xavier", gain=4.0, generator=seeded())
    solver = StochasticADMM(epochs=100, batch_size=143, schedule="constant")
    free, kept = (solver_.train(Problem(start, data, test)) for solver_ in (replace(solver, output_ridge=0.0), solver))
    # The steps do not shrink here. The risk that the term allows: with all margins z the loss is 9 exp(-z), its slope
    # falls to that of the term, 1e-5 * 0.3 * z, near z = 13, at a risk below 1e-4; minibatches add some.
    assert kept.history["loss"][50:].max() < 3e-4
    assert not kept.history["error"][50:].any()
    assert free.history["loss"][50:].max() > 3e-3  # without it: up and down over seven orders of magnitude
    # 360 test images, so two standard errors of a difference are a point and a half.
    early = replace(solver, epochs=15, schedule="cosine").train(Problem(start, data, test))
    error = {name: wrong(training.model, test) for name, training in {"late": kept, "early": early}.items()}
    assert error["late"] < error["early"] + 0.015


def test_every_sample_is_used_once_a_pass_in_minibatches_of_equal_size() -> None:
    seen: list[Tensor] = []

    def remember(output: Tensor, target: Tensor) -> Tensor:
        if output.requires_grad:
            seen.append(target[:, 0].clone())
        return (output - target).square().sum(1)

    x = torch.randn(23, 2, generator=torch.Generator().manual_seed(0))
    y = torch.arange(23.0)[:, None]
    problem = Problem(mlp((2, 3, 1), activation="tanh"), Data(x, y), loss=remember)
    seen.clear()
    StochasticADMM(epochs=2, batch_size=5).train(problem)
    assert [len(one) for one in seen] == [5, 5, 5, 4, 4] * 2
    first, second = torch.cat(seen[:5]), torch.cat(seen[5:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(23))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("normed", [True, False])
def test_edges_stay_finite(normed: bool) -> None:
    solver = StochasticADMM(epochs=3, batch_size=4, normed=normed)
    x = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cases = {
        "one sample": (x[:1], (2, 3, 2)),
        "width one": (x, (2, 1, 1, 2)),
        "constant inputs": (torch.ones_like(x), (2, 3, 2)),
        "zero inputs": (torch.zeros_like(x), (2, 3, 2)),
    }
    for name, (rows, widths) in cases.items():
        for activation in ("relu", "sigmoid"):
            data = Data(rows, torch.arange(len(rows)) % 2, classes=2)
            model = mlp(widths, activation=activation, init="he", generator=torch.Generator().manual_seed(1)).double()
            training = solver.train(Problem(model, data))
            # A step without norm may lead far away from one unit's nine samples; it may not break down.
            assert len(training.history["loss"]) == 4, (name, activation, training.outcome)
            assert all(torch.isfinite(values).all() for values in training.history.values())
            assert not (normed and training.outcome.diverged), (name, activation, training.outcome)


def test_a_zero_gradient_leaves_the_network() -> None:
    x = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = mlp((2, 3, 1), activation="tanh").double()
    data = Data(x, model(x).detach())
    training = StochasticADMM(epochs=2, forgetting=0.0).train(Problem(model, data, loss="squared"))
    # The targets are the outputs up to whitening's rounding; normed steps then follow rounding, so not `normed`.
    plain = StochasticADMM(epochs=2, forgetting=0.0, normed=False).train(Problem(model, data, loss="squared"))
    torch.testing.assert_close(list(plain.model.parameters()), list(model.parameters()), rtol=1e-12, atol=1e-12)
    assert torch.isfinite(training.history["loss"]).all()


def test_regression_and_a_small_type_with_a_larger_one_inside() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(300, 1, generator=generator) * 2 - 1
    model = mlp((1, 30, 30, 1), activation="sigmoid", init="xavier", gain=8.0, generator=generator)
    problem = Problem(model, Data(x, x.square()), loss="squared")
    training = StochasticADMM(epochs=60, batch_size=30, dtype=torch.float64).train(problem)
    assert training.history["loss"][-1] < 1e-3 * training.history["loss"][0]
    assert next(training.model.parameters()).dtype == torch.float32


def test_a_broken_pass_is_repeated_with_half_the_step_and_then_given_up() -> None:
    problem = small_problem("relu", dtype=torch.float64)
    saved = StochasticADMM(epochs=3, batch_size=16, tau=1e3, normed=False).train(problem)
    assert saved.outcome.status in (Status.BUDGET_SPENT, Status.DIVERGED)
    lost = StochasticADMM(epochs=3, batch_size=16, tau=1e300).train(problem)
    assert lost.outcome.diverged
    for values in lost.model.state_dict().values():
        assert torch.isfinite(values).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_bad_minibatch_leaves_no_trace_after_the_pass_is_repeated(bad: float) -> None:
    clean = small_problem("sigmoid", dtype=torch.float64)
    left = [0]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        values = clean.per_sample(output, target)
        if output.requires_grad and left[0]:
            left[0] -= 1
            return bad * values
        return values

    problem = Problem(clean.model, clean.train, loss=loss)
    left[0] = 1
    training = StochasticADMM(epochs=8, batch_size=10, gram_every=1).train(problem)
    assert not training.outcome.diverged
    assert training.history["loss"][-1] < training.history["loss"][0] / 2


def test_a_split_returns_the_best_iterate() -> None:
    problem = small_problem("sigmoid", dtype=torch.float64)
    training = StochasticADMM(epochs=6, batch_size=10, validation=0.3).train(problem)
    held, train = problem.train.split(18, torch.Generator().manual_seed(0))
    risk = problem.with_model(training.model).risk(held)
    assert risk == pytest.approx(float(training.history["validation"].min()), rel=1e-9)
    assert training.history["loss"][0] == pytest.approx(problem.risk(train), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 0), ("gram_every", 0),
     ("state_damping", 0.0), ("output_ridge", -1.0), ("tau", 0.0), ("data_damping", 0.0), ("damping", -1.0),
     ("floor", math.inf), ("momentum", 1.0), ("forgetting", -0.1), ("gram_decay", 1.0), ("schedule", "step"),
     ("validation", 1.0)],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        StochasticADMM(**{name: value})  # type: ignore[arg-type]


def test_another_model_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.1), nn.Linear(4, 3))
    with pytest.raises(InputError, match=r"StochasticADMM cannot train through .*Dropout"):
        StochasticADMM().train(Problem(model, blobs()))
