"""Samples and targets: the only form in which data travel through the library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .errors import DataError


class Samples(Protocol):
    """An array of samples that may be read lazily: indexing gives a tensor in memory."""

    @property
    def shape(self) -> torch.Size:
        """(n, ...): the number of samples, then the shape of one."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers that indexing returns."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Chosen:
    """A lazily read choice of samples: position k is sample `indices[k]` of `samples`."""

    samples: Samples
    indices: Tensor

    @property
    def shape(self) -> torch.Size:
        """(number chosen, ...)."""
        return torch.Size((len(self.indices), *self.samples.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the underlying samples."""
        return self.samples.dtype

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return self.samples[self.indices[indices]]


@dataclass(frozen=True)
class Data:
    """Samples `x` with targets `y`.

    x: (n, ...) float, a tensor or lazily read `Samples`.
    y: (n,) int64 in 0..classes-1 for classes; (n, k) float for regression (classes None); None without targets.
    bounds: the smallest and largest value an entry of x can take, where known: attacks stay inside.
    labels: names of the classes.

    Raises `DataError` when counts differ, when a value is not finite (tensors in memory only: a lazy
    reader checks what it reads), when a label lies outside the classes, or when there are no samples.

    >>> data = Data(torch.zeros(3, 2), torch.tensor([0, 1, 1]), classes=2)
    >>> len(data), data.input_shape
    (3, (2,))
    """

    x: Tensor | Samples
    y: Tensor | None = None
    name: str = "data"
    classes: int | None = None
    bounds: tuple[float, float] | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.x) == 0:
            raise DataError(self.name, "there are no samples", "give at least one")
        if isinstance(self.x, Tensor):
            if not self.x.is_floating_point():
                raise DataError(self.name, f"x has type {self.x.dtype}", "convert it to float, pixels to [0, 1]")
            bad = int((~torch.isfinite(self.x)).reshape(len(self.x), -1).any(1).sum())
            if bad:
                raise DataError(self.name, f"{bad} of {len(self.x)} samples hold NaN or inf", "remove or repair them")
        if self.y is not None:
            self._check_targets(self.y)

    def _check_targets(self, y: Tensor) -> None:
        if len(y) != len(self.x):
            raise DataError(self.name, f"{len(self.x)} samples but {len(y)} targets", "give one target a sample")
        if self.classes is None:
            if not y.is_floating_point():
                raise DataError(self.name, f"targets have type {y.dtype}", "give `classes=` for class labels")
            if not bool(torch.isfinite(y).all()):
                raise DataError(self.name, "some targets are NaN or inf", "remove or repair them")
            return
        if y.dtype != torch.int64 or y.ndim != 1:
            raise DataError(
                self.name,
                f"class labels are {tuple(y.shape)} {y.dtype}",
                "give them as (n,) int64 numbers from 0",
            )
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= self.classes:
            raise DataError(
                self.name,
                f"labels run from {low} to {high} for {self.classes} classes",
                "number the classes from 0",
            )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x.shape[1:])

    @property
    def outputs(self) -> int:
        """Number of outputs that a network for these targets has: the classes, or the regression targets."""
        return self.targets.shape[1] if self.classes is None else self.classes

    @property
    def targets(self) -> Tensor:
        """The targets; raises `DataError` when there are none."""
        if self.y is None:
            raise DataError(self.name, "there are no targets", "name the target column or array")
        return self.y

    def take(self, indices: Tensor) -> Data:
        """Return the samples at `indices` (k,) int64, in that order; lazy samples stay lazy."""
        x = self.x[indices] if isinstance(self.x, Tensor) else Chosen(self.x, indices)
        return replace(self, x=x, y=None if self.y is None else self.y[indices])

    def subsample(self, size: int, generator: torch.Generator) -> Data:
        """Return at most `size` samples drawn without replacement; all of them, in order, if there are no more."""
        if size >= len(self):
            return self
        return self.take(torch.randperm(len(self), generator=generator)[:size])

    def split(self, size: int, generator: torch.Generator) -> tuple[Data, Data]:
        """Split at random into `size` samples and the rest; raises `ValueError` when either part is empty."""
        if not 0 < size < len(self):
            raise ValueError(f"cannot split {len(self)} samples into {size} and the rest; both parts need one")
        order = torch.randperm(len(self), generator=generator)
        return self.take(order[:size]), self.take(order[size:])

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) of at most `size` samples: in order without a generator, else in a random order."""
        targets = self.targets
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        order = order.to(targets.device)
        for first in range(0, len(self), size):
            if generator is None and isinstance(self.x, Tensor):  # a view: no copy
                yield self.x[first : first + size], targets[first : first + size]
            else:
                chosen = order[first : first + size]
                yield self.x[chosen], targets[chosen]

    def in_memory(self) -> Data:
        """Return the same data with `x` as one tensor; raises `DataError` when what was read is not finite."""
        return self if isinstance(self.x, Tensor) else replace(self, x=self.x[torch.arange(len(self))])

    def to(self, device: torch.device | str) -> Data:
        """Return the data on a device; lazy samples are read into memory first."""
        data = self.in_memory()
        assert isinstance(data.x, Tensor)
        return replace(data, x=data.x.to(device), y=None if data.y is None else data.y.to(device))
