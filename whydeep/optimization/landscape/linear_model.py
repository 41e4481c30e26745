"""The gradient near a point as a linear function of the step, g + H p, and the steps that make it small.

The length of the gradient is minimised like a sum of squares: its entries are the residuals and H is their Jacobian, so
that damping (Levenberg and Marquardt) and the second-order correction along a bent valley apply to it as they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearModel:
    """g + H p on a space of steps p, by the singular values of H there, H = sum_i images_i strengths_i directions_i^T.

    directions: (k, p) orthonormal steps; images: (k, p) orthonormal; strengths: (k,) the singular values s_i.
    gradient: (p,) g. norm: |H|, from below where the space is not the whole one.
    """

    directions: Tensor
    images: Tensor
    strengths: Tensor
    gradient: Tensor
    norm: float

    @classmethod
    def dense(cls, hessian: Tensor, gradient: Tensor) -> LinearModel:
        """Build it on the whole space from the eigenvalues of H (p, p): s_i = |lambda_i|."""
        values, vectors = torch.linalg.eigh(hessian)
        signs = torch.where(values < 0, -1.0, 1.0).to(gradient)
        return cls(vectors.T, signs[:, None] * vectors.T, values.abs(), gradient, float(values.abs().max()))

    @classmethod
    def krylov(cls, product: Callable[[Tensor], Tensor], gradient: Tensor, most: int) -> LinearModel:
        """Build it on span{g, H g, ..., H^(k-1) g}, g (p,) other than zero, by at most `most` products v -> H v.

        The method of Lanczos, H Q_k = Q_{k+1} T; every vector is made orthogonal to all earlier ones twice. Fewer
        products are taken when the space is closed under H.
        """
        length = float(gradient.norm())
        steps = min(most, len(gradient))
        basis = gradient.new_zeros(steps + 1, len(gradient))
        small = torch.zeros(steps + 1, steps, dtype=torch.float64)
        basis[0] = gradient / length
        rounding = torch.finfo(gradient.dtype).eps * math.sqrt(len(gradient))
        done = 0
        while done < steps:
            ahead = product(basis[done])
            for _ in range(2):
                overlap = basis[: done + 1] @ ahead
                small[: done + 1, done] += overlap.double().cpu()
                ahead = ahead - basis[: done + 1].T @ overlap
            rest = float(ahead.norm())
            done += 1
            if rest <= rounding * float(small.abs().max()):
                break
            small[done, done - 1] = rest
            basis[done] = ahead / rest
        left, strengths, right = torch.linalg.svd(small[: done + 1, :done], full_matrices=False)
        square = small[:done, :done]
        norm = float(torch.linalg.eigvalsh((square + square.T) / 2).abs().max())
        images = left.T.to(basis) @ basis[: done + 1]
        return cls(right.to(basis) @ basis[:done], images, strengths.to(basis), gradient, norm)

    def least(self, damping: float) -> tuple[Tensor, float]:
        """Return the p (p,) that minimises |H p + g|^2 + damping |H|^2 |p|^2, and |H p + g| there.

        Directions whose singular value is below 1e-14 of the largest are left out, as by the pseudo-inverse.

        >>> hessian, g = torch.diag(torch.tensor([2.0, -1.0, 0.0])).double(), torch.ones(3, dtype=torch.float64)
        >>> step, left = LinearModel.krylov(lambda v: hessian @ v, g, 10).least(0.0)
        >>> [round(float(value), 6) + 0.0 for value in step], round(left, 6)
        ([-0.5, 1.0, 0.0], 1.0)
        """
        step = self.answer(self.gradient, damping)
        slopes = self.images @ self.gradient
        outside = max(float(self.gradient.square().sum() - slopes.square().sum()), 0.0)
        residue = slopes + self.strengths * (self.directions @ step)
        return step, math.sqrt(outside + float(residue.square().sum()))

    def answer(self, residual: Tensor, damping: float) -> Tensor:
        """Return the p (p,) that minimises |H p + r|^2 + damping |H|^2 |p|^2 for any r (p,)."""
        kept = self.strengths > 1e-14 * self.norm
        inverse = torch.where(kept, self.strengths / (self.strengths**2 + damping * self.norm**2), 0.0)
        return -(inverse * (self.images @ residual)) @ self.directions

    def along(self, step: Tensor) -> Tensor:
        """Return H p (p,) for a step p of the space."""
        image: Tensor = (self.strengths * (self.directions @ step)) @ self.images
        return image

    def corrected(self, step: Tensor, gradient_at: Callable[[Tensor], Tensor], damping: float) -> Tensor:
        """Return p + a/2, bent as the valley is, where that is a correction: 2 |a| <= 3/4 |p|; else p.

        a minimises |H a + g''|^2 + damping |H|^2 |a|^2, g'' the second derivative of the gradient along p.
        gradient_at: step (p,) -> gradient there. Source: Transtrum, Machta and Sethna (2011), geodesic acceleration;
        recalled, not checked against the paper, the bound 3/4 and h = 1/10 of the difference included.
        """
        second = second_derivative(step, self.gradient, self.along(step), gradient_at)
        return bent(step, self.answer(second, damping))


def second_derivative(step: Tensor, gradient: Tensor, image: Tensor, gradient_at: Callable[[Tensor], Tensor]) -> Tensor:
    """Return g'' (p,), the second derivative of the gradient along a step p, image = H p, from one more gradient.

    2/h [(g(h p) - g)/h - H p] at h = 1/10, exact for gradients that are quadratic in the step.
    """
    part = 0.1
    result: Tensor = 2 / part * ((gradient_at(part * step) - gradient) / part - image)
    return result


def bent(step: Tensor, bend: Tensor) -> Tensor:
    """Return p + a/2 where the bend a is a correction, 2 |a| <= 3/4 |p|, else p."""
    return step + bend / 2 if 2 * float(bend.norm()) <= 0.75 * float(step.norm()) else step
