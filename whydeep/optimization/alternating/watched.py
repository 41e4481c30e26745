"""The network itself, measured between the sweeps of an alternating method: risk, error, risk on what is held back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.problem import Problem
from whydeep.optimization.distributed.group import Group

from .chain import Chain

Weights = tuple[Tensor, ...]
ROWS = 1024
"""Samples that are measured at a time: the states of all of them need not fit in memory."""


@dataclass(frozen=True)
class Watched:
    """The samples of this process on which the network itself is measured; `held` may be None in some processes only.

    validates: whether any process holds back samples.
    """

    problem: Problem
    chain: Chain
    train: Data
    held: Data | None
    validates: bool
    group: Group

    def measure(self, weights: Weights) -> dict[str, float]:
        """Return "loss", for classes "error", with a split "validation": means over the samples of all processes."""
        sums = torch.cat([self._sums(weights, self.train), self._sums(weights, self.held)])
        self.group.add([sums])
        loss, wrong, count, held_loss, _, held_count = sums.tolist()
        values = {"loss": loss / count}
        if self.problem.train.classes is not None:
            values["error"] = wrong / count
        if self.validates:
            values["validation"] = held_loss / held_count
        return values

    def _sums(self, weights: Weights, data: Data | None) -> Tensor:
        """Return the sum of the losses, how many samples are misclassified, and how many there are, (3,) float64."""
        loss = wrong = torch.zeros((), dtype=torch.float64, device=weights[0].device)
        for x, y in data.batches(ROWS) if data is not None else ():
            output = self.chain.outputs(weights, self.chain.flat(x, weights[0].dtype))
            loss = loss + self.problem.per_sample(output, y).double().sum()
            if self.problem.train.classes is not None:
                wrong = wrong + (output.argmax(1) != y).sum()
        count = torch.tensor(0 if data is None else len(data), dtype=torch.float64, device=loss.device)
        return torch.stack([loss, wrong.double(), count]).cpu()


def identity(train: Data, held: Data | None) -> dict[str, float]:
    """Return counts and sums that tell the samples and their split: of the targets, weighted by their places."""
    found = {"training samples": len(train), "sum of targets": _weighted(train)}
    return (
        found if held is None else found | {"held-back samples": len(held), "sum of those held back": _weighted(held)}
    )


def _weighted(data: Data) -> float:
    y = data.targets.double().reshape(len(data), -1).sum(1).cpu()
    # Rounded, so that another order of summation on another machine gives the same number.
    return float(f"{float(y @ torch.linspace(1, 2, len(y), dtype=y.dtype, device=y.device)):.9g}")
