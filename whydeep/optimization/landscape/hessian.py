"""The Hessian of the empirical risk as an operator: products with vectors, never the matrix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from whydeep.core.data import Data
from whydeep.core.problem import Problem


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Let attention run by formulas that can be differentiated twice inside the block; restore PyTorch's choice after.

    The fused kernels of attention have a backward pass, but none for the backward pass itself.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class Hessian:
    """H = d^2 R / dw^2 at the parameters of `problem.model`, with R(w) = 1/n sum_i loss(model(x_i; w), y_i).

    Calling it with v (p,) returns H v (p,), p the number of trainable parameters in the order of `Problem.vector`.
    The network is a private copy in evaluation mode (batch norm with its running statistics, dropout off), taken when
    the operator is made. A batch weighs as many samples as it holds, so that a ragged last one does no harm.
    At the kinks of a piecewise linear network the second derivative of the kink is taken as zero, as autograd does.

    data: the training data by default. products: how many there were so far.

    Raises `ValueError` when no parameter is trainable or a product is asked with a vector of another length.

    Cost of a product, in gradients (backward passes with their forward pass): about 1.5 when the data fit into one
    batch, whose graph is then kept in memory, and about 3 otherwise, rebuilt batch after batch. Pearlmutter (1994).

    >>> from whydeep.networks import linear
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> problem = Problem(linear(1, 1), Data(x, torch.zeros(2, 1)), loss="squared")
    >>> Hessian(problem)(torch.tensor([1.0, 0.0]))  # mean of x^2 and of x: (1 + 9)/2 and (1 + 3)/2
    tensor([5., 2.])
    """

    def __init__(self, problem: Problem, *, data: Data | None = None, batch_size: int = 2048) -> None:
        self._model: nn.Module = problem.copy().eval()
        self._loss = problem.per_sample
        self._data = problem.train if data is None else data
        self._batch_size = batch_size
        self._weights = [value for value in self._model.parameters() if value.requires_grad]
        if not self._weights:
            raise ValueError("the network has no trainable parameters; give one that has")
        self.size = sum(value.numel() for value in self._weights)
        self.products = 0
        self._kept: list[Tensor] | None = None
        if len(self._data) <= batch_size:
            (batch,) = self._data.batches(batch_size)
            self._kept = self._gradient(*batch)

    def _gradient(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return the gradient of this batch's share of the risk, with the graph that leads to it."""
        with twice_differentiable(), torch.enable_grad():
            share = self._loss(self._model(x), y).sum() / len(self._data)
            return list(torch.autograd.grad(share, self._weights, create_graph=True, materialize_grads=True))

    def _pull(self, gradient: list[Tensor], direction: list[Tensor]) -> list[Tensor]:
        """Return d (gradient . direction) / dw."""
        # An entry that does not depend on the weights (a loss linear in them) has second derivative zero.
        moving = [(g, d) for g, d in zip(gradient, direction, strict=True) if g.requires_grad]
        if not moving:
            return [torch.zeros_like(value) for value in self._weights]
        parts = torch.autograd.grad(
            [g for g, _ in moving],
            self._weights,
            grad_outputs=[d for _, d in moving],
            retain_graph=self._kept is not None,
            materialize_grads=True,
        )
        return list(parts)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return H v (p,) for v (p,)."""
        if vector.shape != (self.size,):
            raise ValueError(f"the vector has shape {tuple(vector.shape)}; the Hessian takes ({self.size},)")
        self.products += 1
        pieces = torch.split(vector, [value.numel() for value in self._weights])
        direction = [piece.view_as(value).to(value) for piece, value in zip(pieces, self._weights, strict=True)]
        if self._kept is not None:
            total = self._pull(self._kept, direction)
        else:
            total = [torch.zeros_like(value) for value in self._weights]
            for x, y in self._data.batches(self._batch_size):
                parts = self._pull(self._gradient(x, y), direction)
                total = [one + part for one, part in zip(total, parts, strict=True)]
        return torch.cat([part.reshape(-1) for part in total]).to(vector)
