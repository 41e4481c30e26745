"""Paths made of legs: on each the risk is sampled, or known to be constant, convex or monotone: its ends bound it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from whydeep.core.data import Data
from whydeep.core.exhibit import Curve, Line
from whydeep.core.measurement import Measurement
from whydeep.core.numbers import plain
from whydeep.core.problem import Problem

from .profile import Profile, State, along, between, squares, with_statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["straight", "convex", "constant", "monotone"]


@dataclass(frozen=True)
class Leg:
    """A piece of a path, s in [0, 1] -> state.

    kind: what is known of the risk on it: "convex" or "monotone" in s, "constant", or nothing ("straight").
    bent: whether it is a curve between its ends rather than a straight line.
    """

    at: Callable[[float], State] = field(repr=False)
    kind: Kind = "straight"
    bent: bool = False

    @classmethod
    def line(cls, first: State, second: State, kind: Kind = "straight") -> Leg:
        """Return the straight leg between two states."""
        return cls(lambda s: between(first, second, s), kind)

    def reversed(self) -> Leg:
        """Return the leg walked the other way."""
        return Leg(lambda s: self.at(1 - s), self.kind, self.bent)

    def length(self, names: Sequence[str], pieces: int = 32) -> float:
        """Return the Euclidean length over the named weights; a curve's is that of a polygon of so many pieces."""
        count = pieces if self.bent else 1
        stops = [self.at(k / count) for k in range(count + 1)]
        return sum(distance(one, other, names) for one, other in pairwise(stops))


def distance(first: State, second: State, names: Sequence[str]) -> float:
    """Return the Euclidean distance over the named weights."""
    squares = [float((first[name].double() - second[name].to(first[name]).double()).square().sum()) for name in names]
    return math.sqrt(sum(squares))


WORDS = {
    "line": "straight line",
    "permute": "units matched",
    "dynamic_string": "string of beads",
    "bezier": "trained bend",
    "relu": "constructed for rectified units",
    "linear": "constructed for linear units",
}
"""What the methods are called in a picture."""


@dataclass(frozen=True)
class Path:
    """A path between two networks.

    profile: the risk along it; position t runs with the distance travelled. beads: the states at the ends of its legs.
    length: sum of the legs' lengths over |a - b|, both over the trainable parameters; 1 for a straight line. (Of a
    permuted network b is the one that was given, so that a value below 1 says how much nearer the permutation came.)
    kinds: what is known of the risk on each leg; certified: the largest risk at the beads, which is the largest on the
    whole path when every leg is convex, monotone or constant, on the training data; else None.
    connected: whether a method that aims at a level reached it everywhere it looked; None for the others.
    remark: what else is to be said, such as the ends' own risks where batch norm's statistics are taken anew.
    """

    method: str
    profile: Profile
    beads: tuple[State, ...] = field(repr=False)
    length: float
    places: tuple[float, ...]
    legs: tuple[Leg, ...] = field(repr=False)
    certified: float | None = None
    connected: bool | None = None
    remark: str = ""

    @property
    def barrier(self) -> Measurement:
        """max_t [R(t) - (1 - t) R(0) - t R(1)], with the interval of `Profile.barrier`."""
        return self.profile.barrier

    def at(self, position: float) -> State:
        """Return the state of the network at t in [0, 1]; batch norm keeps interpolated statistics there."""
        if not 0 <= position <= 1:
            raise ValueError(f"position is {position}; give a number in [0, 1]")
        return _state(self.legs, self.places, position)

    def network(self, model: nn.Module, position: float) -> nn.Module:
        """Return a copy of `model`, a network of this shape, with the state at `position`."""
        model = copy.deepcopy(model)
        model.load_state_dict(self.at(position))
        return model

    def curve(self, *, what: Literal["risk", "error"] = "risk") -> Curve:
        """Return the profile as a plot, with the beads marked."""
        values = self.profile.risk if what == "risk" else self.profile.error
        if values is None:
            raise ValueError('the targets are no classes, so there is no error along the path; give what="risk"')
        t = self.profile.positions
        lines = [Line("along the path", t.tolist(), values.tolist())]
        if len(self.places) > 2:
            where = [int((t - place).abs().argmin()) for place in self.places]
            # A gap after every bead, so that they are points and not joined.
            x = [place for k in where for place in (float(t[k]), float(t[k]))][:-1]
            y = [value for k in where for value in (float(values[k]), math.nan)][:-1]
            lines.append(Line("beads", x, y, role="reference", marks=True))
        lines.append(Line("no barrier", [0.0, 1.0], [float(values[0]), float(values[-1])], role="reference"))
        if self.certified is not None and what == "risk":
            lines.append(Line("certified maximum", [0.0, 1.0], [self.certified] * 2, role="theory"))
        return Curve(
            f"{what.capitalize()} along the path ({WORDS.get(self.method, self.method)})",
            f"part of the way (length {plain(self.length, 3)}, straight line 1)",
            "risk" if what == "risk" else "misclassified fraction",
            tuple(lines),
            alt=f"Along a path of {len(self.places)} beads the {what} reaches {plain(float(values.max()), 2)}; at its "
            f"ends it is {plain(float(values[0]), 2)} and {plain(float(values[-1]), 2)}.",
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the risk along the path into `ax` (new ones when None) and return it."""
        return self.curve().plot(ax)

    @classmethod
    def of(
        cls,
        method: str,
        problem: Problem,
        legs: Sequence[Leg],
        *,
        data: Data | None = None,
        points: int = 11,
        refinements: int = 5,
        recompute_statistics: bool = True,
        ridge: float = 0.0,
        ends: tuple[State, State] | None = None,
        remark: str = "",
        connected: bool | None = None,
    ) -> Path:
        """Return the path over `legs`, with `points` positions on each leg and `refinements` beside the highest.

        Raises `ValueError` on fewer than three points: a leg's ends say nothing of what lies between them.
        """
        if points < 3:
            raise ValueError(f"points={points}; give at least 3, the two ends of a leg and one between them")
        beads = (*(leg.at(0.0) for leg in legs), legs[-1].at(1.0))
        names = [name for name, value in problem.model.named_parameters() if value.requires_grad]
        lengths = [leg.length(names) for leg in legs]
        total = sum(lengths)
        first, last = ends if ends is not None else (beads[0], beads[-1])
        apart = distance(first, last, names)
        # Two networks of the same weights: the path stands still, and each leg gets its share of [0, 1].
        shares = [length / total for length in lengths] if total > 0 else [1 / len(legs)] * len(legs)
        places = [0.0]
        for share in shares:
            places.append(min(1.0, places[-1] + share))
        places[-1] = 1.0
        inside = points - 1
        looked = [low + (high - low) * k / inside for low, high in pairwise(places) for k in range(inside + 1)]
        profile = along(
            problem,
            lambda position: _state(legs, places, position),
            data=data,
            positions=[min(1.0, place) for place in looked],
            refinements=refinements,
            recompute_statistics=recompute_statistics,
            ridge=ridge,
        )
        certified = None
        if all(leg.kind != "straight" for leg in legs):
            certified = max(_risk_at(problem, bead, ridge) for bead in beads)
        if recompute_statistics and with_statistics(problem.model):
            own = [plain(_risk_at(problem, end, ridge, data), 3) for end in (first, last)]
            anew = [plain(float(profile.risk[k]), 3) for k in (0, -1)]
            if own != anew:
                said = (
                    f"batch norm's statistics are taken anew along the path, so its ends have risk {anew[0]} and "
                    f"{anew[1]}; with their own statistics the networks have {own[0]} and {own[1]}"
                )
                remark = f"{remark}; {said}" if remark else said
        length = total / apart if apart > 0 else 1.0
        return cls(method, profile, beads, length, tuple(places), tuple(legs), certified, connected, remark)

    @classmethod
    def through(cls, method: str, problem: Problem, beads: Sequence[State], **rest: Any) -> Path:
        """Return the polygon through `beads`."""
        legs = [Leg.line(one, other) for one, other in pairwise(beads)]
        return cls.of(method, problem, legs, **rest)


def _state(legs: Sequence[Leg], places: Sequence[float], position: float) -> State:
    for leg, low, high in zip(legs, places[:-1], places[1:], strict=True):
        if position <= high and high > low:
            return leg.at((position - low) / (high - low))
    return legs[-1].at(1.0)


def _risk_at(problem: Problem, state: State, ridge: float, data: Data | None = None) -> float:
    model = problem.copy()
    model.load_state_dict(state)
    return problem.with_model(model).risk(data) + ridge * squares(model)
