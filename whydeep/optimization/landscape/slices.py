"""Slices of the landscape: the risk along a line through the solution."""

from __future__ import annotations

from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.evaluation import outputs
from whydeep.core.problem import Problem


def rise(problem: Problem, direction: Tensor, step: float, *, data: Data | None = None) -> Tensor:
    """Return loss_i(w + step d) - loss_i(w) for every sample, (n,), with d = direction / |direction|.

    w are the parameters of `problem.model`, direction (p,); evaluation mode, on the training data by default.
    The mean is the rise of the risk, R(w + step d) - R(w), in units of the loss. Cost: two passes over the data.
    Raises `ValueError` when the direction is zero.

    >>> import torch
    >>> data = Data(torch.tensor([[1.0]]), torch.tensor([[0.0]]))
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, data, loss="squared").at(torch.tensor([2.0]))
    >>> rise(problem, torch.tensor([5.0]), 1.0)  # 1/2 (3^2 - 2^2)
    tensor([2.5000], dtype=torch.float64)
    """
    length = float(direction.norm())
    if not length > 0:
        raise ValueError("the direction has length 0; give one that points somewhere")
    data = problem.train if data is None else data
    moved = problem.at(problem.vector() + step / length * direction)
    losses = [problem.per_sample(outputs(each.model, data), data.targets).double() for each in (moved, problem)]
    return losses[0] - losses[1]
