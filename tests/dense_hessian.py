"""The Hessian of a problem entry by entry: the slow reference of everything that takes products with it."""

from __future__ import annotations

import torch
from torch import Tensor

from whydeep.core import Problem


def dense(problem: Problem) -> Tensor:
    """By a route of its own: the risk as a function of the flat vector, differentiated twice."""
    model = problem.copy().eval()
    free = [(name, value.shape) for name, value in model.named_parameters() if value.requires_grad]
    x = problem.train.in_memory().x

    def risk(vector: Tensor) -> Tensor:
        pieces = vector.split([shape.numel() for _, shape in free])
        weights = {name: piece.view(shape) for (name, shape), piece in zip(free, pieces, strict=True)}
        return problem.per_sample(torch.func.functional_call(model, weights, (x,)), problem.train.targets).mean()

    return torch.autograd.functional.hessian(risk, problem.vector())
