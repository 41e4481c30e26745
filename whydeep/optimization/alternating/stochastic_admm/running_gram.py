"""Second moments of a layer's inputs: followed over minibatches while the layers below move, or taken once and for all.

A W-step of an alternating method solves a least-squares problem in the inputs A (n, d) of its layer; what it needs of
them is the matrix K = A'A/n. Where the layer has a bias, the part of K that the mean causes is removed first: with
U = (A - mu) W' + b the bias carries the mean, and the covariance C = A'A/n - mu mu' is what W's step sees. In exact
arithmetic and without damping this changes nothing. With damping it decides whether a signal that is small beside its
mean (sigmoid layers at PyTorch's default start: one part in a million and less) is seen at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class RunningGram:
    """The moving mean mu (d,) and covariance C (d, d) of a layer's inputs, and the inverse that a step applies.

    Each `update` by m rows of mean mu_m and covariance C_m makes, with decay r,

        C <- r C + (1 - r) C_m + r (1 - r) (mu_m - mu)(mu_m - mu)',      mu <- r mu + (1 - r) mu_m,

    the mean and covariance of the mixture of what was there, weight r, and the new rows. The first update takes them
    as they are. Then `inverse` is (C + delta I)^-1 with

        delta = damping * mean(diag C) + floor * mean(A^2),

    relative to the variance of the inputs and to their size; delta is 1 where both vanish.
    Not `centred`: mu stays zero, and C is the moving average of A'A/m.

    The inverse is taken in float64 whatever the type of the rows: single precision fails on saturated layers.
    Cost of an update: 2 m d^2 operations and one inverse, some 2 d^3. Raises `ArithmeticError` where the inverse fails.

    >>> gram = RunningGram(damping=0.0, floor=0.0)
    >>> gram.update(torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0], [4.0, 2.0]]))
    >>> gram.mean.tolist(), gram.inverse.diagonal().tolist()  # variances 4 and 1
    ([2.0, 1.0], [0.25, 1.0])
    """

    mean: Tensor
    inverse: Tensor

    def __init__(self, *, damping: float, floor: float, decay: float = 0.8, centred: bool = True) -> None:
        self.damping, self.floor, self.decay, self.centred = damping, floor, decay, centred
        self._covariance: Tensor | None = None

    @property
    def covariance(self) -> Tensor:
        """The present C (d, d); after the first update."""
        assert self._covariance is not None
        return self._covariance

    def update(self, rows: Tensor) -> None:
        """Take in the inputs `rows` (m, d) of a minibatch."""
        mean, covariance = moments(rows, centred=self.centred)
        if self._covariance is None:
            self.mean, self._covariance = mean, covariance
        else:
            gap = mean - self.mean
            self._covariance.mul_(self.decay).add_(covariance, alpha=1 - self.decay)
            self._covariance.addr_(gap, gap, alpha=self.decay * (1 - self.decay))
            self.mean = self.mean.lerp(mean, 1 - self.decay)
        damped = self._covariance.double()  # a copy, unless the rows are float64 already
        shift = self.damping * float(damped.diagonal().mean()) + self.floor * float(rows.square().mean())
        self.inverse = torch.cholesky_inverse(_factor(damped, shift)).to(rows.dtype)


def moments(rows: Tensor, *, centred: bool = True) -> tuple[Tensor, Tensor]:
    """Return mean (d,) and covariance (d, d), divided by the number of rows; zero and A'A/n when not centred."""
    mean = rows.mean(0) if centred else torch.zeros_like(rows[0])
    apart = rows - mean if centred else rows
    return mean, apart.T @ apart / len(rows)


@dataclass(frozen=True)
class Whitening:
    """New coordinates of the data, in which the first layer's preconditioner is the identity.

    With C the covariance of the data, delta = damping * mean(diag C) and C + delta I = L L': samples become
    (x - mu) L^-T and the weights W L, so that U is the same, and a plain gradient step in W L is the step with
    (C + delta I)^-1 in W. It spares the product with the inverse, 2 outputs d^2 operations, at every minibatch.

    >>> x = torch.tensor([[0.0], [4.0]])  # variance 4
    >>> Whitening.of(x, damping=0.0).samples(x).tolist()
    [[-1.0], [1.0]]
    """

    mean: Tensor
    factor: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, rows: Tensor, *, damping: float, centred: bool = True) -> Whitening:
        """Return the whitening of the samples (n, d); cost 2 n d^2 operations, the factors are float64."""
        mean, covariance = moments(rows, centred=centred)
        covariance = covariance.double()
        factor = _factor(covariance, damping * float(covariance.diagonal().mean()))
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        return cls(mean.double(), factor, torch.linalg.solve_triangular(factor, identity, upper=False))

    def samples(self, rows: Tensor) -> Tensor:
        """Return (x - mu) L^-T, (n, d), in the type of the rows."""
        return (rows - self.mean.to(rows.dtype)) @ self.inverse.T.to(rows.dtype)

    def into(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W L and b + W mu: the layer in the new coordinates, in its own type."""
        wide = weight.double()
        moved = None if bias is None else (bias.double() + wide @ self.mean).to(bias.dtype)
        return (wide @ self.factor).to(weight.dtype), moved

    def back(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the layer in the coordinates of the samples themselves: the inverse of `into`."""
        plain = weight.double() @ self.inverse
        moved = None if bias is None else (bias.double() - plain @ self.mean).to(bias.dtype)
        return plain.to(weight.dtype), moved


def _factor(matrix: Tensor, shift: float) -> Tensor:
    """Return the lower Cholesky factor of matrix + shift I, both float64; a shift of zero becomes 1 for a zero matrix.

    Raises `ArithmeticError` when it is not positive definite to rounding, or not finite.
    """
    if shift == 0 and not bool(matrix.any()):
        shift = 1.0
    damped = matrix + shift * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(damped)
    if int(failed) or not bool(torch.isfinite(factor.diagonal()).all()):
        raise ArithmeticError("the moments of a layer's inputs were not positive definite (more damping prevents that)")
    return factor
