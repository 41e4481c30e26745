"""Two rectified units and their mirror image are parted by a barrier: not every landscape is simple.

Statement: f(x) = v_1 relu(w_1 x) + v_2 relu(w_2 x), x in the plane, fits y = relu(x_1) + relu(x_2) with w = (e_1, e_2)
and with w = (e_2, e_1), whose determinants are +1 and -1. On every path between the two the determinant vanishes
somewhere; there the rows are parallel, f depends on one coordinate u x only, f(x) = a relu(u x) + b relu(-u x), and the
risk is at least the smallest that such functions have, over all directions u. More units remove the barrier.
Source: Freeman and Bruna (2017), section 2.3.1 (there a mixture of two Gaussians; here two Gaussian coordinates);
lecture, "Nonlinear ReLU network". The argument by the determinant is theirs, the target was chosen for this library.
Assumptions: two hidden units, none with a bias; the two solutions have determinants of opposite sign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.paths.path import path


@dataclass(frozen=True)
class Case:
    """Samples of two Gaussian coordinates, a network with `width` units, and the far end of the path.

    width: units beyond two are off at both ends. mirrored: whether the far end is the mirror image, or the near end
    itself. angles: how many directions the lower bound looks at. positions: where paths are looked at.
    """

    width: int = 2
    samples: int = 200
    mirrored: bool = True
    angles: int = 720
    positions: int = 201

    def data(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return x (samples, 2) and y = relu(x_1) + relu(x_2)."""
        x = torch.randn(self.samples, 2, generator=generator, dtype=torch.float64)
        return x, torch.relu(x).sum(1, keepdim=True)


def two_units(case: Case) -> bool:
    """Whether the network has two hidden units, so that its determinant exists."""
    return case.width == 2


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return the least risk of a function of one coordinate, over all directions of it."""
    x, y = case.data(torch.Generator().manual_seed(generator.initial_seed()))
    least = math.inf
    for k in range(case.angles):
        # Half a turn is enough: the other half exchanges a and b.
        angle = math.pi * k / case.angles
        u = x @ torch.tensor([[math.cos(angle)], [math.sin(angle)]], dtype=torch.float64)
        units = torch.cat([torch.relu(u), torch.relu(-u)], 1)
        rest = y - units @ torch.linalg.lstsq(units, y).solution
        least = min(least, 0.5 * float(rest.square().mean()))
    # Between two of the directions looked at (1/4 degree) and two positions on a path the risk changes by far less
    # than 5 %: it is a quadratic form of functions that change by 1/200 of their size.
    return Prediction("at least", 0.95 * least, constants={"least risk of one coordinate": least})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Search for a low path in three ways and return the smallest of their highest risks."""
    x, y = case.data(torch.Generator().manual_seed(generator.initial_seed()))
    shapes = ((2, case.width), (case.width, 1))
    layers = [nn.utils.skip_init(nn.Linear, *shape, bias=False).double() for shape in shapes]  # type: ignore[no-untyped-call]
    for layer in layers:
        nn.init.zeros_(layer.weight)
    problem = Problem(nn.Sequential(layers[0], nn.ReLU(), layers[1]), Data(x, y), loss="squared")
    rows = torch.eye(case.width, 2, dtype=torch.float64)
    off = torch.zeros(1, case.width, dtype=torch.float64)
    off[0, :2] = 1
    near = torch.cat([rows.reshape(-1), off.reshape(-1)])
    if case.mirrored:
        rows = rows.clone()
        rows[:2] = rows[:2].flip(0)
    far = torch.cat([rows.reshape(-1), off.reshape(-1)])
    look = {"points": case.positions, "refinements": 6}
    found = {
        "line": path(problem, near, far, **look),  # type: ignore[arg-type]
        "convex and constant legs": path(problem, near, far, method="relu", points=41, refinements=6),
        "bent": path(problem, near, far, method="bezier", bends=2, steps=200, lr=0.05, generator=generator, **look),  # type: ignore[arg-type]
    }
    highest = {name: one.profile.highest for name, one in found.items()}
    best = min(highest, key=highest.__getitem__)
    return exact(
        "highest risk on the lowest path found",
        highest[best],
        method=f"the lowest of three paths, {best}",
        evaluations=3,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="Every path between two rectified units that fit a function of both coordinates and their mirror image "
    "passes a risk of at least that of the best function of one coordinate.",
    source='Freeman and Bruna (2017), section 2.3.1; lecture, "Nonlinear ReLU network"',
    assumptions={"two hidden units": two_units},
    predict=predict,
    measure=measure,
    holds_on=Case,
    # Two spare units carry the function while the first two change places.
    fails_on=lambda: Case(width=4),
    # A path that ends where it began instead of at the mirror image: it crosses nothing.
    corrupted=lambda: Case(mirrored=False),
    convincing=lambda: Case(samples=2000, angles=1440, positions=801),
)
