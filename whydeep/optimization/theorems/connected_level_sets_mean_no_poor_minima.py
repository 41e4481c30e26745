"""Connected level sets mean no poor minima: where every sublevel set is one piece, every local minimum is global.

Statement: if N_u, the number of connected components of {E <= u}, is 1 for all u >= min E, then E has no local minimum
above its global one. Proof: just above the value of a strict poor minimum its basin is a component of its own, and the
global minimum lies in another. The converse fails: two global minima of equal height give N_u = 2.
Source: lecture, "Simple Topology", proposition; Freeman and Bruna (2017).
Predicted: no poor minimum. Measured: points of a sampled landscape that lie below all their neighbours and above the
lowest point, counted one by one; the assumption is checked by the merge tree.
Assumption: N_u = 1 at every level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.level_sets import sublevel_sets


@dataclass(frozen=True)
class Case:
    """Landscapes on a grid of the square [-2, 2]^2, whose sublevel sets are stars of three arms, turned by angles.

    wells: 1 for that, 2 adds a second, higher well. neighbours: "all" six of the grid's triangles, or those in a "row".
    """

    size: int = 41
    landscapes: int = 4
    wells: int = 1
    neighbours: Literal["all", "row"] = "all"

    def values(self, number: int) -> Tensor:
        """Return the landscape (size, size): not convex, rising along every ray from the minimum."""
        line = torch.linspace(-2, 2, self.size, dtype=torch.float64)
        x, y = torch.meshgrid(line, line, indexing="ij")
        angle = 2 * math.pi * number / self.landscapes + 0.1
        # The minimum lies on a point of the grid, away from its middle. From 2/7 = 0.286 on the arms are not convex;
        # much longer ones are too narrow for the grid beside their root.
        x, y = x - line[self.size // 2 + 3], y - line[self.size // 2 - 2]
        star = (x.square() + y.square()) * (1 + 0.3 * torch.sin(3 * torch.atan2(y, x) + angle))
        if self.wells == 1:
            return star
        return torch.minimum(star, 0.2 + 4 * ((x + 1).square() + (y + 1).square()))


def connected(case: Case) -> bool:
    """Whether the sublevel sets of every landscape are connected at all levels."""
    return all(sublevel_sets(case.values(number)).simple for number in range(case.landscapes))


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return that there are no poor minima."""
    return Prediction("at most", 0.0)


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Count the points that lie below all their neighbours and above the lowest point."""
    steps = [(0, 1), (0, -1)]
    if case.neighbours == "all":
        steps += [(1, 0), (-1, 0), (1, 1), (-1, -1)]
    poor = 0
    for number in range(case.landscapes):
        values = case.values(number)
        framed = torch.nn.functional.pad(values, (1, 1, 1, 1), value=math.inf)
        lower = torch.ones_like(values, dtype=torch.bool)
        for i, j in steps:
            lower &= values < framed[1 + i : 1 + i + case.size, 1 + j : 1 + j + case.size]
        poor += int((lower & (values > values.min())).sum())
    return exact(
        "poor local minima", float(poor), method=f"neighbours of {case.size**2:,} points, {case.landscapes} times"
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="If the sublevel sets of a landscape are connected at every level, it has no local minimum above its "
    "global one.",
    source='Lecture, "Simple Topology", proposition; Freeman and Bruna (2017)',
    assumptions={"one component at every level": connected},
    predict=predict,
    measure=measure,
    holds_on=Case,
    fails_on=lambda: Case(wells=2),
    # A minimum along one row only is none: what is lower lies in the next row.
    corrupted=lambda: Case(neighbours="row"),
    convincing=lambda: Case(size=121, landscapes=12),
)
