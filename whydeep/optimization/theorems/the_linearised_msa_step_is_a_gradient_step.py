"""One step of gradient ascent on every layer's Hamiltonian is one step of gradient descent on the risk.

Statement: with states x and co-states p of the controls theta (p_T = -grad loss, p_t = grad_x <p_{t+1}, f_t>) and
H_t(theta_t) = 1/n sum over samples of <p_{t+1}, f_t(x_t, theta_t)> - ridge/2 ||theta_t||^2,

    theta_t + eta dH_t/dtheta_t = theta_t - eta d(R + ridge/2 sum_s ||theta_s||^2)/dtheta_t for every layer t:

MSA with its maximum replaced by a linearised step is back-propagation. No layer needs another's new control.
Source: Li, Chen, Tai and E, JMLR 2018, section on MSA and gradient descent (recalled, not checked against the paper).
Assumption, checked: states and co-states belong to the controls that are moved. With stale ones (layers updated from
an earlier pass) it is another step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim, OnDraw
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.verdict import Prediction
from whydeep.networks.residual import residual_mlp
from whydeep.optimization.hamiltonian import Layer, Trajectory, extended_hamiltonian, layers_of, trajectory

DIFFERENCE = 1e-5
"""Half the distance of the central difference: its error is of order 1e-10, and rounding adds 1e-11."""


@dataclass(frozen=True)
class Case:
    """A residual tanh network with a linear output layer, and a step along a random direction.

    stale: standard deviation by which the controls have moved since states and co-states were computed.
    kept: the factor that a co-state is multiplied by at each layer on its way back; 1, unless the mechanism is damaged.
    """

    width: int = 5
    depth: int = 6
    classes: int = 3
    samples: int = 40
    step_size: float = 0.5
    ridge: float = 0.1
    stale: float = 0.0
    kept: float = 1.0


@dataclass(frozen=True)
class _Drawn:
    problem: Problem
    directions: tuple[Tensor, ...]
    drift: tuple[Tensor, ...]


def _draw(case: Case, seed: int) -> _Drawn:
    """The same network, samples and directions for the same seed: predict and measure look at one step."""
    generator = torch.Generator().manual_seed(seed)
    blocks = residual_mlp(case.width, case.depth, delta=0.5, generator=generator)
    output = nn.utils.skip_init(nn.Linear, case.width, case.classes)  # type: ignore[no-untyped-call]
    model = nn.Sequential(*blocks, output).double()
    with torch.no_grad():
        for value in output.parameters():
            value.normal_(generator=generator)
    x = torch.randn(case.samples, case.width, dtype=torch.float64, generator=generator)
    problem = Problem(model, Data(x, torch.arange(case.samples) % case.classes, classes=case.classes))
    directions, drift = (
        tuple(torch.randn(value.shape, dtype=value.dtype, generator=generator) for value in model.parameters())
        for _ in range(2)
    )
    return _Drawn(problem, directions, drift)


def _path(case: Case, drawn: _Drawn) -> Trajectory:
    """States and co-states, of the present controls where `stale` is 0."""
    model = drawn.problem.copy()
    with torch.no_grad():
        for value, moved in zip(model.parameters(), drawn.drift, strict=True):
            value.add_(moved, alpha=case.stale)
    assert isinstance(drawn.problem.train.x, Tensor)
    path = trajectory(layers_of(model), drawn.problem.per_sample, drawn.problem.train.x, drawn.problem.train.targets)
    last = len(path.costates) - 1
    return replace(path, costates=tuple(case.kept ** (last - t) * one for t, one in enumerate(path.costates)))


def _belong(case: Case, generator: torch.Generator) -> bool:
    drawn = _draw(case, generator.initial_seed())
    path = _path(replace(case, kept=1.0), drawn)
    layers = layers_of(drawn.problem.copy())
    with torch.no_grad():
        misfits = [float((layer(path.states[t]) - path.states[t + 1]).abs().max()) for t, layer in enumerate(layers)]
    return max(misfits) < 1e-12  # the same forward pass, up to rounding


def _predict(case: Case, generator: torch.Generator) -> Prediction:
    drawn = _draw(case, generator.initial_seed())
    direction = torch.cat([one.reshape(-1) for one in drawn.directions])
    slope = drawn.problem.gradient() + case.ridge * drawn.problem.vector()
    value = -case.step_size * float(slope @ direction)
    # The differences of the other route are good to some 1e-10 a layer, each of order one; co-states that lose 1 % a
    # layer move the value by 1e-2 of that.
    return Prediction("equals", value, tolerance=1e-7, constants={"step size": case.step_size, "ridge": case.ridge})


def _moved(layers: tuple[Layer, ...], index: int, directions: list[Tensor], distance: float) -> None:
    with torch.no_grad():
        for value, direction in zip(layers[index].control, directions, strict=True):
            value.add_(direction, alpha=distance)


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    drawn = _draw(case, generator.initial_seed())
    path, layers = _path(case, drawn), layers_of(drawn.problem.copy())
    left = list(drawn.directions)
    value = 0.0
    for index, layer in enumerate(layers):
        directions, left = left[: len(layer.control)], left[len(layer.control) :]
        heights = []
        for distance in (DIFFERENCE, -2 * DIFFERENCE):  # to one side, then to the other
            _moved(layers, index, directions, distance)
            heights.append(float(extended_hamiltonian(layers, path, index, ridge=case.ridge).detach()))
        _moved(layers, index, directions, DIFFERENCE)
        value += case.step_size * (heights[0] - heights[1]) / (2 * DIFFERENCE)
    return exact(
        "all layers' linearised steps on their Hamiltonians, along a random direction",
        value,
        method="differences of Hamiltonians",
        evaluations=2 * len(layers),
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="A gradient step of every layer on its own Hamiltonian is a gradient step on the risk.",
    source="Li, Chen, Tai and E (JMLR 2018); lecture, Discrete EMSA of PMP",
    assumptions={"states and co-states are of the present controls": OnDraw(_belong)},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    fails_on=lambda: Case(stale=0.1),
    corrupted=lambda: Case(kept=0.99),
    convincing=lambda: Case(width=20, depth=30, classes=10, samples=500),
)
