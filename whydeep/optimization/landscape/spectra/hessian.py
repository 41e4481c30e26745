"""The Hessian of the empirical risk as an operator: products with vectors, never the matrix."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem

from .second_derivative import (
    Pieces,
    Pull,
    check_finite,
    gauss_newton_pull,
    has_second_derivative,
    hessian_pull,
    linearised,
    share,
)
from .second_derivative import twice_differentiable as twice_differentiable

Engine = Literal["auto", "retained", "rebuilt", "linearised", "difference"]
ENGINES = ("auto", "retained", "rebuilt", "linearised", "difference")


class Hessian:
    """H = d^2 R / dw^2 at the parameters of `problem.model`, with R(w) = 1/n sum_i loss(model(x_i; w), y_i).

    Calling it with v (p,) returns H v (p,), with a block (b, p) the b products; p is the number of trainable
    parameters in the order of `Problem.vector`, or of those whose names are in `only`: a diagonal block of H.
    The network is a private copy in evaluation mode (batch norm with its running statistics, dropout off), taken when
    the operator is made. A batch weighs as many samples as it holds, so that a ragged last one does no harm.
    At the kinks of a piecewise linear network the second derivative of the kink is taken as zero, as autograd does.

    data: the training data by default. products: how many there were so far.
    gauss_newton: the part 1/n sum_i J_i^T L_i J_i of H in its place (see `gauss_newton_pull`).
    batch_norm: "frozen", or "batch": statistics of the samples looked at, which then must fit into one batch.
    engine, each with what a product costs in gradients (a backward pass with its forward pass):
    "retained", the graph of the gradient kept in memory, one batch only: 1.5 to 2;
    "rebuilt", the graph anew for each batch and block: 1.5 to 2, and 2 more for each block;
    "linearised", vmap over a traced linearisation, one batch only: 1.4 to 2.4, after 0.4 to 1.3 s of tracing;
    "difference", (g(w + h v) - g(w - h v)) / 2h of gradients g: 2, for layers without a second derivative in PyTorch.
    In double precision, whatever the network's, where its layers allow that: relative error of about 1e-9, and kinks
    are hardly met by so small a step. Else in single precision: about 1e-4, and the slopes' jumps at the kinks that a
    larger step crosses are part of what it sees;
    "auto": difference where a second derivative is missing, else retained for one batch and rebuilt for more; on a GPU,
    where blocks pay, linearised for one batch.

    Raises `InputError` when no parameter is trainable, the loss cannot be differentiated, or the gradient is not
    finite (naming the layer); `ValueError` when a product is asked with a vector of another length.

    >>> from whydeep.networks import linear
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> problem = Problem(linear(1, 1), Data(x, torch.zeros(2, 1)), loss="squared")
    >>> Hessian(problem)(torch.tensor([1.0, 0.0]))  # mean of x^2 and of x: (1 + 9)/2 and (1 + 3)/2
    tensor([5., 2.])
    """

    def __init__(
        self,
        problem: Problem,
        *,
        data: Data | None = None,
        batch_size: int = 2048,
        engine: Engine = "auto",
        gauss_newton: bool = False,
        batch_norm: Literal["frozen", "batch"] = "frozen",
        only: Sequence[str] | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"unknown engine {engine!r}; give one of {', '.join(ENGINES)}")
        self._model: nn.Module = problem.copy().eval()
        self._loss = problem.per_sample
        self._data = problem.train if data is None else data
        self._batch_size = batch_size
        self._build = gauss_newton_pull if gauss_newton else hessian_pull
        free = {name: value for name, value in self._model.named_parameters() if value.requires_grad}
        if only is not None:
            free = {name: value for name, value in free.items() if name in only}
        if not free:
            raise InputError("the network has no trainable parameters here", "give one that has")
        self._names = [*free]
        self._weights: Pieces = [*free.values()]
        self.size = sum(value.numel() for value in self._weights)
        self.products = 0
        single = len(self._data) <= batch_size
        if batch_norm == "batch":
            _use_batch_statistics(self._model, single)
        self.engine = self._choose(engine, single, gauss_newton)
        # Central differences err by eps^(2/3) of the gradient's own size.
        epsilon = torch.finfo(self._weights[0].dtype).eps
        self.noise = epsilon
        if self.engine == "difference":
            self._to_double()
            self.noise = max(epsilon, torch.finfo(self._weights[0].dtype).eps ** (2 / 3))
        self._kept: Pull | None = None
        if self.engine == "retained":
            (batch,) = self._data.batches(batch_size)
            self._kept = self._batch(*batch)
        elif self.engine == "linearised":
            (batch,) = self._data.batches(batch_size)
            x, y = batch
            self._kept = linearised(
                self._model, self._names, weights=self._weights, loss=self._loss, x=x, y=y, total=len(self._data)
            )

    def _choose(self, engine: Engine, single: bool, gauss_newton: bool) -> Engine:
        if engine in ("retained", "linearised") and not single:
            raise InputError(
                f"the engine {engine!r} takes one batch, and {len(self._data)} samples come in batches of "
                f"{self._batch_size}",
                "give a larger batch_size or engine='rebuilt'",
            )
        if gauss_newton and engine in ("linearised", "difference"):
            raise ValueError(f"the Gauss-Newton matrix has no engine {engine!r}; give 'retained' or 'rebuilt'")
        if engine != "difference" and not gauss_newton and not self._has_second_derivative():
            if engine == "auto":
                return "difference"
            raise InputError(
                "a layer of the network has no second derivative in PyTorch",
                "give engine='difference', or write the layer of PyTorch's own operations",
            )
        if engine != "auto":
            return engine
        if not single:
            return "rebuilt"
        on_gpu = self._weights[0].device.type == "cuda"
        return "linearised" if on_gpu and not gauss_newton else "retained"

    def _to_double(self) -> None:
        """Take differences in double precision, unless a layer or the device does not know it."""
        single = self._model, self._weights
        try:
            self._model = copy.deepcopy(self._model).double()
            own = dict(self._model.named_parameters())
            self._weights = [own[name] for name in self._names]
            self._gradient(self._data.take(torch.arange(1)))
        except (RuntimeError, TypeError, NotImplementedError):
            self._model, self._weights = single

    def _batch(self, x: Tensor, y: Tensor) -> Pull:
        return self._build(self._model, self._weights, loss=self._loss, x=x, y=y, total=len(self._data))

    def _has_second_derivative(self) -> bool:
        few = self._data.take(torch.arange(min(2, len(self._data))))
        (batch,) = few.batches(2)
        x, y = batch
        return has_second_derivative(self._model, self._weights, loss=self._loss, x=x, y=y)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return H v (p,) for v (p,), or the rows H v (b, p) for a block (b, p)."""
        if vector.shape[-1:] != (self.size,) or vector.ndim not in (1, 2):
            raise ValueError(f"the vector has shape {tuple(vector.shape)}; the Hessian takes ({self.size},)")
        rows = vector.reshape(-1, self.size).to(self._weights[0])
        self.products += len(rows)
        if self.engine == "linearised" and self._kept is not None:
            images = self._flat(self._kept(self._pieces(rows)), len(rows))
        elif self._kept is not None:
            kept = self._kept
            images = torch.stack([self._flat(kept(self._pieces(row))) for row in rows])
        elif self.engine == "difference":
            images = torch.stack([self._difference(row) for row in rows])
        else:
            images = torch.zeros_like(rows)
            for x, y in self._data.batches(self._batch_size):
                pull = self._batch(x, y)
                for image, row in zip(images, rows, strict=True):
                    image += self._flat(pull(self._pieces(row)))
        return images.reshape(vector.shape).to(vector)

    def _pieces(self, vector: Tensor) -> Pieces:
        pieces = torch.split(vector, [value.numel() for value in self._weights], dim=-1)
        return [
            piece.reshape(*vector.shape[:-1], *value.shape) for piece, value in zip(pieces, self._weights, strict=True)
        ]

    @staticmethod
    def _flat(pieces: Pieces, block: int | None = None) -> Tensor:
        shape = (-1,) if block is None else (block, -1)
        return torch.cat([piece.detach().reshape(shape) for piece in pieces], dim=-1)

    def _difference(self, vector: Tensor) -> Tensor:
        length = float(vector.norm())
        if length == 0:
            return torch.zeros_like(vector)
        # Truncation grows as step^2, rounding of the gradients as eps / step: eps^(1/3) balances them.
        scale = max(1.0, float(torch.cat([w.detach().reshape(-1) for w in self._weights]).norm()))
        step = torch.finfo(vector.dtype).eps ** (1 / 3) * scale / length
        direction = self._pieces(vector)
        home = [value.detach().clone() for value in self._weights]
        ends = []
        for sign in (1, -1):
            self._move(home, direction, sign * step)
            ends.append(self._gradient(self._data))
        self._move(home, direction, 0.0)
        slope: Tensor = (ends[0] - ends[1]) / (2 * step)
        return slope

    def _move(self, home: Pieces, direction: Pieces, step: float) -> None:
        with torch.no_grad():
            for value, start, d in zip(self._weights, home, direction, strict=True):
                value.copy_(start + step * d)

    def _gradient(self, data: Data) -> Tensor:
        total = torch.zeros(self.size, dtype=self._weights[0].dtype, device=self._weights[0].device)
        for x, y in data.batches(self._batch_size):
            x, y = x.to(total), y.to(total) if y.is_floating_point() else y
            with torch.enable_grad():
                value = share(self._model, self._loss, x=x, y=y, total=len(data))
                parts = torch.autograd.grad(value, self._weights, materialize_grads=True)
            check_finite(self._model, self._weights, gradient=parts, x=x)
            total += self._flat(list(parts))
        return total


def _use_batch_statistics(model: nn.Module, single: bool) -> None:
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    if layers and not single:
        raise InputError(
            "batch norm with the statistics of its batch makes the risk depend on how the data are cut into batches",
            "give a batch_size as large as the data, or batch_norm='frozen'",
        )
    for layer in layers:
        layer.train()
        layer.track_running_stats = False  # the copy's own running statistics are neither used nor moved
        layer.running_mean = layer.running_var = None
