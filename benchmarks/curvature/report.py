"""The two networks whose Hessian is measured, and what a tool reports of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import whydeep as wd

TOP, RESIDUAL, TRACE = 10, 1e-4, 0.02
"""Asked of every tool: eigenvalues, their residuals as a part of the largest, standard error as a part of the trace."""


@dataclass
class Report:
    """What a tool found: eigenvalues, vectors (rows, the smallest last where it has one), trace, density's quadrature.

    weights: one row a run or column, each of sum 1. What was not asked for is empty or NaN.
    """

    values: Tensor
    vectors: Tensor
    bottom: float
    trace: float
    nodes: Tensor
    weights: Tensor
    products: int


@dataclass
class Task:
    """A trained network with its data."""

    model: nn.Module
    problem: wd.Problem
    x: Tensor
    y: Tensor

    @property
    def weights(self) -> list[Tensor]:
        return list(self.model.parameters())


Tool = Callable[[Task, int, dict[str, Any]], Report]
"""Called with the task, a seed and settings: of the parts that are asked for, those whose settings are there."""


def task(network: str) -> Task:
    """Return 64-256-242-10 on 1,000 digits, or two convolutions and two dense layers on 256, after ten passes."""
    train, _ = wd.data.load("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if network == "mlp":
            model, samples = wd.networks.mlp((64, 256, 242, 10)), 1000
        else:
            model, samples = (
                nn.Sequential(
                    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                    nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
                    nn.Flatten(), nn.Linear(1024, 42), nn.ReLU(), nn.Linear(42, 10),
                ),
                256,
            )  # fmt: skip
    data = train.take(torch.arange(samples)).in_memory()
    solver = wd.optimization.Backprop(torch.optim.Adam, lr=1e-3, epochs=10)
    trained = solver.train(wd.Problem(model, data)).model.eval()
    return Task(trained, wd.Problem(trained, data), data.x, data.targets)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spread(rows: Tensor) -> Tensor:
    """Weights of separate runs (r, k) as rows over all nodes (r, r k)."""
    runs, steps = rows.shape
    out = torch.zeros(runs, runs * steps)
    for index, row in enumerate(rows):
        out[index, index * steps : (index + 1) * steps] = row
    return out


def peer(name: str) -> ModuleType:
    """Import a peer; it is not a dependency of the library."""
    return importlib.import_module(name)


class Counted:
    """Counts the products of a peer's operator."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.count = function, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.count += 1
        return self.function(*arguments, **named)
