"""Slices of the landscape: the risk along a line through the solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.evaluation import outputs
from whydeep.core.exhibit import Curve, Line
from whydeep.core.numbers import plain
from whydeep.core.problem import Problem

from .offsets import check_finite, risks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


TENTHS = tuple(tenth / 10 for tenth in range(-10, 11))


@dataclass(frozen=True)
class Slice:
    """The risk (k,) at w + position * direction, positions (k,) in lengths of the direction."""

    positions: Tensor
    risk: Tensor
    unit: str = "lengths of the direction"

    def curve(self, title: str = "The risk along a line") -> Curve:
        """Return the plot of the risk against the position."""
        finite = self.risk[torch.isfinite(self.risk)]
        low, high = (plain(float(end), 2) for end in (finite.min(), finite.max())) if len(finite) else ("-", "-")
        line = Line("risk", self.positions.tolist(), self.risk.tolist(), marks=len(self.risk) < 30)
        return Curve(title, f"position ({self.unit})", "risk", (line,), alt=f"The risk runs from {low} to {high}.")

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw it into `axes` (new ones when None) and return them."""
        return self.curve().plot(axes)


def line_slice(
    problem: Problem,
    direction: Tensor,
    *,
    positions: Sequence[float] | Tensor = TENTHS,
    data: Data | None = None,
    recompute_statistics: bool = False,
) -> Slice:
    """Return R(w + t d) at every position t, w the parameters of `problem.model`, d the direction (p,) as it is.

    Take d from `plane.random_direction` for filter-normalised ones, from `Spectrum.sharpest` for an eigenvector, or
    a difference of two networks. Evaluation mode, on the training data by default; recompute_statistics: see `risks`.
    A slice cannot prove convexity. Raises `ValueError` on a direction of another shape and without positions,
    `InputError` on a direction or positions that are not finite. Cost: one pass over the data a position.

    >>> data = Data(torch.tensor([[1.0]]), torch.tensor([[0.0]]))
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, data, loss="squared").at(torch.tensor([2.0]))
    >>> line_slice(problem, torch.tensor([1.0]), positions=[-2.0, 0.0, 1.0]).risk  # 1/2 (2 + t)^2
    tensor([0.0000, 2.0000, 4.5000], dtype=torch.float64)
    """
    if direction.shape != (size := problem.vector().shape):
        raise ValueError(f"the direction has shape {tuple(direction.shape)}; the network has {size[0]} parameters")
    places = torch.as_tensor(positions, dtype=torch.float64).reshape(-1)
    if not len(places):
        raise ValueError("positions is empty; give at least one")
    values = torch.empty(len(places), dtype=torch.float64)
    parts = risks(
        problem,
        places[:, None],
        centre=problem.vector(),
        directions=direction[None],
        data=data,
        recompute_statistics=recompute_statistics,
    )
    for rows, part in parts:
        values[rows] = part
    return Slice(places, values)


def rise(problem: Problem, direction: Tensor, step: float, *, data: Data | None = None) -> Tensor:
    """Return loss_i(w + step d) - loss_i(w) for every sample, (n,), with d = direction / |direction|.

    w are the parameters of `problem.model`, direction (p,); evaluation mode, on the training data by default.
    The mean is the rise of the risk, R(w + step d) - R(w), in units of the loss. Cost: two passes over the data.
    Raises `ValueError` when the direction is zero, `InputError` when it or the step is not finite.

    >>> import torch
    >>> data = Data(torch.tensor([[1.0]]), torch.tensor([[0.0]]))
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, data, loss="squared").at(torch.tensor([2.0]))
    >>> rise(problem, torch.tensor([5.0]), 1.0)  # 1/2 (3^2 - 2^2)
    tensor([2.5000], dtype=torch.float64)
    """
    check_finite(direction=direction, step=torch.as_tensor(step))
    length = float(direction.norm())
    if not length > 0:
        raise ValueError("the direction has length 0; give one that points somewhere")
    data = problem.train if data is None else data
    moved = problem.at(problem.vector() + step / length * direction)
    losses = [problem.per_sample(outputs(each.model, data), data.targets).double() for each in (moved, problem)]
    return losses[0] - losses[1]
