"""The Hessian of the risk as a matrix, for networks of at most some thousand parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from whydeep.core.problem import Problem

from .spectra.hessian import twice_differentiable


def dense_hessian(problem: Problem, *, batch_size: int = 2048) -> Tensor:
    """Return the Hessian of the risk (p, p) at `problem.model`, in evaluation mode.

    Rows are pulled back together, as many as make 2^17 samples: much faster than p products for small networks, in
    memory of p^2 and about a gigabyte at a thousand hidden units.
    """
    model = problem.copy().eval()
    weights = [value for value in model.parameters() if value.requires_grad]
    total: Tensor | float = 0.0
    for x, y in problem.train.batches(batch_size):
        with twice_differentiable(), torch.enable_grad():
            share = problem.per_sample(model(x), y).sum() / len(problem.train)
            parts = torch.autograd.grad(share, weights, create_graph=True, materialize_grads=True)
            gradient = torch.cat([part.reshape(-1) for part in parts])
            if not gradient.requires_grad:  # the loss is linear in every weight
                total = total + torch.zeros(len(gradient), len(gradient), dtype=gradient.dtype)
                continue
            unit = torch.eye(len(gradient), dtype=gradient.dtype, device=gradient.device)
            pieces = torch.split(unit, max(1, 2**17 // len(x)))
            rows = [
                torch.autograd.grad(
                    gradient,
                    weights,
                    grad_outputs=piece,
                    is_grads_batched=True,
                    materialize_grads=True,
                    retain_graph=True,
                )
                for piece in pieces
            ]
        blocks = [torch.cat([row.reshape(len(part[0]), -1) for row in part], 1) for part in rows]
        total = total + torch.cat(blocks)
    assert isinstance(total, Tensor)
    return (total + total.T) / 2
