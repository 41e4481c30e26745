"""Paths between two solutions: is there a valley between them, or does every path found cross a barrier?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.problem import Problem

from .bezier import bent
from .leg import Path
from .linear_path import through_linear_layers
from .permutation import align
from .profile import Profile, along, between
from .relu_path import through_relu_layer
from .same_kind import check_same_kind
from .string import strung

Method = Literal["line", "permute", "dynamic_string", "bezier", "relu", "linear"]


def path(
    problem: Problem,
    a: nn.Module | Tensor,
    b: nn.Module | Tensor,
    *,
    method: Method = "line",
    data: Data | None = None,
    **options: Any,
) -> Path:
    """Return a path between two networks of the kind of `problem.model`, with the risk along it.

    a, b: networks, or vectors (p,) of their trainable parameters; neither is changed.
    method:
    "line": the straight line w(t) = (1 - t) a + t b.
    "permute": the line from a to b with its units in the order nearest to a's, which computes what b does (`align`).
    "dynamic_string": beads trained to a level, put where the risk is too high (`strung`).
    "bezier": a curve whose bend is trained (`bent`).
    "relu": for two layers with rectified units, convex and constant legs with a certified maximum
    (`through_relu_layer`).
    "linear": for linear networks, a path modulo the general linear group on which the risk is certified never to
    exceed the worse end (`through_linear_layers`).
    data: where the profile is taken, the training data by default; beads and bends are found on the training data.
    options: those of the method, and `points`, `refinements`, `recompute_statistics` of the profile (`along`).

    Raises `ValueError` on an unknown method, `InputError` when a network is not of the kind of `problem.model` (the
    difference is named: `check_same_kind`), holds NaN, or the method does not fit.
    Cost: that of the method, and a pass over the data a position.

    >>> import torch
    >>> from whydeep.networks import linear
    >>> data = Data(torch.tensor([[1.0]]), torch.tensor([[1.0]]))
    >>> problem = Problem(linear(1, 1), data, loss="squared")
    >>> found = path(problem, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    >>> found.barrier.value, found.length
    (0.0, 1.0)
    """
    first, second = _network(problem, a), _network(problem, b)
    for end in (first, second):
        check_same_kind(problem.model, end, problem.train)
        problem.with_model(end)  # its check names weights that hold NaN
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; give one of {', '.join(METHODS)}")
    return METHODS[method](problem, first, second, data=data, **options)


def _network(problem: Problem, given: nn.Module | Tensor) -> nn.Module:
    if isinstance(given, Tensor):
        return problem.at(given).model
    if not isinstance(given, nn.Module):
        raise TypeError(f"an end of the path is {type(given).__name__}; give a network or a vector of parameters")
    return given


def straight(
    problem: Problem,
    other: nn.Module,
    *,
    data: Data | None = None,
    points: int = 11,
    refinements: int = 5,
    recompute_statistics: bool = True,
) -> Profile:
    """Return the risk on `data` along w(t) = (1 - t) a + t b from the network of `problem` (a) to `other` (b).

    The barrier is max_t [R(w(t)) - (1 - t) R(a) - t R(b)], as in Entezari et al. (2022); Frankle et al. (2020) take
    the error in place of the risk. First `points` equally spaced positions are looked at, then `refinements` times
    the two midpoints beside the highest of them; see `along` for batch norm, cost and memory.

    Raises `InputError` when the networks are not of one kind (`check_same_kind`), `ValueError` when points < 3.
    """
    check_same_kind(problem.model, other, problem.train)
    first, second = problem.model.state_dict(), other.state_dict()
    return along(
        problem,
        lambda position: between(first, second, position),
        data=data,
        positions=points,
        refinements=refinements,
        recompute_statistics=recompute_statistics,
    )


def _line(
    problem: Problem, a: nn.Module, b: nn.Module, *, data: Data | None = None, points: int = 11, **rest: Any
) -> Path:
    beads = (a.state_dict(), b.state_dict())
    return Path.through("line", problem, beads, data=data, points=points, **rest)


def _permuted(
    problem: Problem,
    a: nn.Module,
    b: nn.Module,
    *,
    data: Data | None = None,
    points: int = 11,
    refinements: int = 5,
    recompute_statistics: bool = True,
    **matching: Any,
) -> Path:
    aligned = align(b, a, problem.train, **matching)
    return Path.through(
        "permute",
        problem,
        (a.state_dict(), aligned.state),
        data=data,
        points=points,
        refinements=refinements,
        recompute_statistics=recompute_statistics,
        ends=(a.state_dict(), b.state_dict()),
        remark=f"{aligned.moved} units of the second network changed places; it computes the same function",
    )


METHODS: dict[str, Callable[..., Path]] = {
    "bezier": bent,
    "dynamic_string": strung,
    "line": _line,
    "linear": through_linear_layers,
    "permute": _permuted,
    "relu": through_relu_layer,
}
