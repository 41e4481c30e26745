"""The risk at many points around a solution at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from whydeep.core import parameters
from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.optimization.landscape.paths.profile import take_statistics
from whydeep.optimization.landscape.spectra.second_derivative import twice_differentiable

AT_ONCE = 2**22
"""Numbers that the stacked weights of one pass may hold: 16 MB in single precision, what a cache can still serve."""


def risks(
    problem: Problem,
    offsets: Tensor,
    *,
    centre: Tensor,
    directions: Tensor,
    data: Data | None = None,
    recompute_statistics: bool = False,
    batch_size: int = 1024,
) -> Iterator[tuple[slice, Tensor]]:
    """Yield, part by part, the risks at centre + offsets @ directions as (which rows, float64 values).

    centre: (p,), directions: (k, p), offsets: (m, k). Several points go through the network in one pass (vmap), where
    its layers allow it; else one after another. Evaluation mode, on the training data by default; a risk that is not
    finite comes as inf. With recompute_statistics the running statistics of batch norm are taken from
    `problem.train` anew at every point, one after another.
    Raises `InputError` when centre, directions or offsets hold NaN or inf: infinite risks would be no finding then.
    Cost: m passes over the data. Memory: `AT_ONCE` numbers and their activations.
    """
    check_finite(centre=centre, directions=directions, positions=offsets)
    data = problem.train if data is None else data
    model = problem.copy().eval()
    like = parameters.named(model)
    at_once = 1 if recompute_statistics else max(1, min(16, AT_ONCE // len(centre)))
    together = at_once > 1
    first = 0
    while first < len(offsets):
        rows = slice(first, min(first + at_once, len(offsets)))
        points = centre + offsets[rows].to(centre) @ directions.to(centre)
        if together:
            try:
                values = _together(problem, model, like, points, data, batch_size)
            except (RuntimeError, NotImplementedError):  # a layer that vmap does not know
                together, at_once = False, 1
                continue
        else:
            parameters.load(model, points[0])
            if recompute_statistics:
                take_statistics(model, problem.train)
            values = _alone(problem, model, data, batch_size)
        yield rows, torch.nan_to_num(values.double().cpu(), nan=torch.inf, posinf=torch.inf)
        first = rows.stop


def check_finite(**given: Tensor) -> None:
    """Raise `InputError` that names the first of the tensors that holds NaN or inf."""
    for name, value in given.items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{name} holds NaN or inf", "give finite numbers")


def _alone(problem: Problem, model: torch.nn.Module, data: Data, batch_size: int) -> Tensor:
    with torch.no_grad():
        sums = [problem.per_sample(model(x), y).sum().double() for x, y in data.batches(batch_size)]
    return torch.stack(sums).sum(0, keepdim=True) / len(data)


def _together(
    problem: Problem, model: torch.nn.Module, like: dict[str, Tensor], points: Tensor, data: Data, batch_size: int
) -> Tensor:
    sizes = [value.numel() for value in like.values()]
    stacked = {
        name: piece.reshape(len(points), *value.shape)
        for (name, value), piece in zip(like.items(), torch.split(points, sizes, dim=1), strict=True)
    }

    def total(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return problem.per_sample(torch.func.functional_call(model, weights, (x,)), y).sum()

    batches = data.batches(batch_size)
    with torch.no_grad(), twice_differentiable():  # attention by its formulas: the fused kernel knows no vmap
        sums = [torch.func.vmap(total, in_dims=(0, None, None))(stacked, x, y).double() for x, y in batches]
    return torch.stack(sums).sum(0) / len(data)
