"""The risk along a curve of networks: where it is highest, and how far above the straight interpolation of its ends."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from whydeep.core.data import Data
from whydeep.core.evaluation import outputs
from whydeep.core.measurement import Measurement, mean
from whydeep.core.problem import Problem

State = Mapping[str, Tensor]
"""The parameters and buffers of a network by name, as `state_dict` gives them."""


@dataclass(frozen=True)
class Profile:
    """The risk along a path: position t in [0, 1], ascending (k,), and the risk there (k,).

    error: misclassified fraction (k,), None for regression.
    excess: loss above the straight interpolation of the ends, sample by sample (n,), at the position of the barrier.
    """

    positions: Tensor
    risk: Tensor
    error: Tensor | None
    excess: Tensor

    @property
    def above(self) -> Tensor:
        """Risk minus the straight interpolation (1 - t) R(0) + t R(1), (k,); zero at both ends."""
        return self.risk - torch.lerp(self.risk[0], self.risk[-1], self.positions)

    @property
    def summit(self) -> float:
        """The position of the barrier."""
        return float(self.positions[self.above.argmax()])

    @property
    def highest(self) -> float:
        """The largest risk at the positions looked at."""
        return float(self.risk.max())

    @property
    def barrier(self) -> Measurement:
        """max_t [R(t) - (1 - t) R(0) - t R(1)] >= 0 over the positions looked at, never more than over all.

        The interval is Student's over the samples at the summit: how far another sample of data would move it.
        """
        method = f"Student, {len(self.excess)} samples; maximum over {len(self.positions)} positions"
        return mean("barrier", self.excess, method=method, evaluations=len(self.positions))


def along(
    problem: Problem,
    curve: Callable[[float], State],
    *,
    data: Data | None = None,
    positions: Sequence[float] | int = 11,
    refinements: int = 5,
    recompute_statistics: bool = True,
    ridge: float = 0.0,
) -> Profile:
    """Return the risk on `data` (the training data by default) of the networks curve(t), t in [0, 1].

    positions: where to look first; a number means so many equally spaced ones. Both ends are always looked at. Then,
    `refinements` times, the two midpoints beside the highest of them.
    With recompute_statistics the running statistics of batch norm layers are taken anew from `problem.train` at
    every position, the ends included: means and variances of activations do not interpolate (Jordan et al. 2023). So
    the risks of the ends are not quite those of the two networks with the statistics they came with.
    ridge: so many times the squares of all weights but biases and norms (`squares`) are added to every loss.

    Evaluation mode; `problem.model` is not changed. Cost: one pass over the data a position, with batch norm one over
    the training data, too. Memory: one loss a sample and position.
    Raises `ValueError` on fewer than three positions or one outside [0, 1], and on a ridge below zero.
    """
    if not ridge >= 0:
        raise ValueError(f"ridge={ridge}; give a number >= 0")
    if isinstance(positions, int):
        if positions < 3:
            raise ValueError(f"points={positions}; give at least 3, the two ends and one between them")
        positions = [index / (positions - 1) for index in range(positions)]
    places = sorted({0.0, 1.0, *positions})
    if places[0] < 0 or places[-1] > 1:
        raise ValueError(f"positions run from {places[0]} to {places[-1]}; give numbers in [0, 1]")
    data = problem.train if data is None else data
    model = copy.deepcopy(problem.model).eval()
    seen: dict[float, tuple[Tensor, float]] = {}

    def visit(position: float) -> None:
        model.load_state_dict(curve(position))
        if recompute_statistics:
            take_statistics(model, problem.train)
        output = outputs(model, data)
        losses = problem.per_sample(output, data.targets).double().cpu() + ridge * squares(model)
        wrong = 0.0 if data.classes is None else float((output.argmax(1) != data.targets).double().mean())
        seen[position] = (losses, wrong)

    def above(position: float) -> float:
        return float(_excess(seen, position).mean())

    for place in (0.0, 1.0, *places[1:-1]):
        visit(place)
    for _ in range(refinements):
        places = sorted(seen)
        summit = places.index(max(places, key=above))
        for beside in (summit - 1, summit + 1):
            if 0 <= beside < len(places):
                visit((places[summit] + places[beside]) / 2)
    places = sorted(seen)
    return Profile(
        positions=torch.tensor(places, dtype=torch.float64),
        risk=torch.stack([seen[place][0].mean() for place in places]),
        error=None if data.classes is None else torch.tensor([seen[place][1] for place in places]).double(),
        excess=_excess(seen, max(places, key=above)),
    )


def _excess(seen: dict[float, tuple[Tensor, float]], position: float) -> Tensor:
    return seen[position][0] - torch.lerp(seen[0.0][0], seen[1.0][0], position)


def between(first: State, second: State, position: float) -> dict[str, Tensor]:
    """Return (1 - t) first + t second: everything of floating type moves, frozen weights and buffers as well.

    >>> between({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)
    {'w': tensor([1.])}
    """
    return {
        name: torch.lerp(value, second[name].to(value), position) if value.is_floating_point() else value
        for name, value in first.items()
    }


def squares(model: nn.Module) -> float:
    """Return the sum of the squares of all parameters with two axes or more: matrices and kernels, no biases.

    >>> model = nn.Linear(2, 1)
    >>> _ = nn.init.constant_(model.weight, 3.0)
    >>> squares(model)
    18.0
    """
    weights = (value.detach() for value in model.parameters() if value.ndim > 1)
    return sum(float(value.double().square().sum()) for value in weights)


def with_statistics(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norm layers that keep running statistics."""
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None]


def take_statistics(model: nn.Module, data: Data, batch_size: int = 2048) -> None:
    """Set the running statistics of batch norm layers to the mean of those of the batches of `data`, in place."""
    layers = with_statistics(model)
    if not layers or len(data) < 2:  # a variance needs two samples
        return
    momenta = [layer.momentum for layer in layers]
    # Batches of equal size, so that each counts alike in the running mean.
    count = -(-len(data) // batch_size)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over the batches
        layer.train()
    with torch.no_grad():
        for chosen in torch.arange(len(data)).tensor_split(count):
            model(data.x[chosen])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
