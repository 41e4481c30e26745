"""Paths between two solutions: is the straight line between them a valley or does it cross a barrier?"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from whydeep.core.data import Data
from whydeep.core.evaluation import outputs
from whydeep.core.measurement import Measurement, mean
from whydeep.core.problem import Problem


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
    def barrier(self) -> Measurement:
        """max_t [R(t) - (1 - t) R(0) - t R(1)] >= 0 over the positions looked at, never more than over all.

        The interval is Student's over the samples at the summit: how far another sample of data would move it.
        """
        method = f"Student, {len(self.excess)} samples; maximum over {len(self.positions)} positions"
        return mean("barrier", self.excess, method=method, evaluations=len(self.positions))


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
    the two midpoints beside the highest of them.

    Everything of floating type in the networks' states moves along the line, frozen weights and buffers as well.
    With recompute_statistics the running statistics of batch norm layers are taken anew from `problem.train` at
    every position, the ends included: means and variances of activations do not interpolate (Jordan et al. 2023).

    Evaluation mode; neither network is changed. Cost: points + 2 refinements passes over the data, with batch norm as
    many over the training data, too. Memory: one loss a sample and position.
    Raises `ValueError` when the networks' states differ in names or shapes, or points < 3.
    """
    first, second = problem.model.state_dict(), other.state_dict()
    if first.keys() != second.keys() or any(first[name].shape != second[name].shape for name in first):
        raise ValueError("the two networks differ in the names or shapes of their weights; give two of one kind")
    if points < 3:
        raise ValueError(f"points={points}; give at least 3, the two ends and one between them")
    data = problem.train if data is None else data
    model = copy.deepcopy(problem.model).eval()
    seen: dict[float, tuple[Tensor, float]] = {}

    def visit(position: float) -> None:
        model.load_state_dict(
            {
                name: torch.lerp(value, second[name].to(value), position) if value.is_floating_point() else value
                for name, value in first.items()
            }
        )
        if recompute_statistics:
            _take_statistics(model, problem.train)
        output = outputs(model, data)
        losses = problem.per_sample(output, data.targets).double().cpu()
        wrong = 0.0 if data.classes is None else float((output.argmax(1) != data.targets).double().mean())
        seen[position] = (losses, wrong)

    def above(position: float) -> float:
        return float(_excess(seen, position).mean())

    for index in range(points):
        visit(index / (points - 1))
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


def _take_statistics(model: nn.Module, data: Data, batch_size: int = 2048) -> None:
    """Set the running statistics of batch norm layers to the mean of those of the batches of `data`."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None]
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
