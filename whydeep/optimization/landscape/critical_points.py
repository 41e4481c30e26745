"""Search for critical points of any index: the length of the gradient is minimised, and the end is called by its name.

Descent on the risk finds minima only. A step p that minimises |H p + g| (Newton-MR) goes to critical points of every
kind, and since <p, H g> <= 0 it lowers |grad R|^2. Searches of this sort often end where |grad R|^2 is stationary and
grad R is not zero, H g = 0: gradient-flat points (Frye et al. 2021), which earlier work counted as critical. So |g| and
|H g|/(|H| |g|) are reported, and `kind` says "critical" only below a strict tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.parameters import named, unflatten
from whydeep.core.problem import Problem

from .spectra.hessian import Hessian, twice_differentiable

Kind = Literal["critical", "gradient-flat", "unfinished"]

FLAT = 1e-2
"""|H g|/(|H| |g|) below which H g counts as zero: no step of first order lowers |g| by more than so little."""


@dataclass(frozen=True)
class SearchEnd:
    """Where a search for a critical point ended.

    kind: "critical" (|g| <= tolerance), "gradient-flat" (|g| is not small, but H g is: stuck) or "unfinished".
    vector: (p,) parameters, float64. energy: the risk there. gradient_norm: |g|.
    flatness: |H g|/(|H| |g|), 0 where g = 0. curvatures: (p,) ascending eigenvalues of H, None beyond `dense_limit`.
    steps: taken. products: of the Hessian with a vector, beside the dense matrices.
    """

    kind: Kind
    vector: Tensor
    energy: float
    gradient_norm: float
    flatness: float
    curvatures: Tensor | None
    steps: int
    products: int

    @property
    def critical(self) -> bool:
        """Whether the point may be called critical."""
        return self.kind == "critical"

    @property
    def zero(self) -> float:
        """Eigenvalues within +- this are counted as zero: 1e-7 of the largest, the roundings of H and sqrt(|g|)."""
        return 0.0 if self.curvatures is None else 1e-7 * float(self.curvatures.abs().max())

    @property
    def index(self) -> float | None:
        """The fraction of negative eigenvalues; None where the point is not critical or they were not computed."""
        if self.curvatures is None or not self.critical:
            return None
        return float((self.curvatures < -self.zero).double().mean())

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        lengths = f"gradient {self.gradient_norm:.1e}, |Hg|/(|H||g|) {self.flatness:.1e}, energy {self.energy:.4g}"
        if not self.critical:
            return f"No critical point: the search ended {self.kind} ({lengths})."
        if self.curvatures is None:
            return f"A critical point ({lengths}); its index was not computed."
        count = int((self.curvatures < -self.zero).sum())
        flat = int((self.curvatures.abs() <= self.zero).sum())
        return f"A critical point ({lengths}): {count} of {len(self.curvatures)} curvatures below zero, {flat} zero."


def find_critical_point(
    problem: Problem,
    *,
    tolerance: float = 1e-8,
    most: int = 200,
    krylov: int = 200,
    dense_limit: int = 1000,
    data: Data | None = None,
) -> SearchEnd:
    """Search from the parameters of `problem.model` for a point where the gradient of the risk is zero.

    In float64 and evaluation mode, on `data` (the training data by default). Every step minimises
    |H p + g|^2 + mu |p|^2; the damping mu falls where |g|^2 falls as the linear model promises and rises where it does
    not (Levenberg and Marquardt), which costs a gradient each time. So |g| never rises, singular H included. With at
    most `dense_limit` parameters H is formed and its eigenvalues are returned; beyond that the step is sought in a
    Krylov space of at most `krylov` products, and the index is left out. `most` steps at most.
    Where units are rectified the gradient jumps and a search may end unfinished: it says so.

    Raises `InputError` when the gradient at the start is not finite, `ValueError` on a tolerance or counts that are
    not positive. Cost of a step: p or `krylov` products and a gradient or two; memory min(p, krylov) * p numbers.
    Source: Roosta et al. (Newton-MR, 2018; recalled, not checked against the paper: there a line search stands where
    the damping stands here, which met steps of no use along nearly flat directions), Frye et al. (2021).

    >>> from whydeep.networks import linear
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> end = find_critical_point(Problem(linear(1, 1), Data(x, 2 * x), loss="squared"))
    >>> end.kind, end.index, round(end.energy, 9)  # least squares: one minimum
    ('critical', 0.0, 0.0)
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"problem is {type(problem).__name__}; give a Problem of a network, its data and a loss")
    if not tolerance > 0 or most < 1 or krylov < 1:
        raise ValueError(f"tolerance={tolerance}, most={most}, krylov={krylov}; give all above zero")
    problem = in_double(problem, data=data)
    vector = problem.vector()
    gradient = problem.gradient()
    if not bool(torch.isfinite(gradient).all()):
        pieces = unflatten(gradient, named(problem.model))
        bad = [name for name, piece in pieces.items() if not bool(torch.isfinite(piece).all())]
        raise InputError(f"the gradient of {', '.join(bad[:5])} holds NaN or inf", "start from other weights")
    length, products, steps = float(gradient.norm()), 0, 0
    small = len(vector) <= dense_limit
    damping = 1e-3  # of |H|^2
    while length > tolerance and steps < most:
        if small:
            model = LinearModel.dense(dense_hessian(problem), gradient)
        else:
            hessian = Hessian(problem)
            model = LinearModel.krylov(hessian, gradient, krylov)
            products += hessian.products
        while damping < 1e8:
            step, left = model.least(damping)
            moved = problem.at(vector + step)
            ahead = moved.gradient()
            reached = float(ahead.norm())
            gain = (length**2 - reached**2) / max(length**2 - left**2, torch.finfo(ahead.dtype).tiny)
            if gain > 0.75:
                damping = max(damping / 10, 1e-20)
            elif not gain > 0.25:  # not a number counts as no gain
                damping *= 4
            if gain > 1e-3:
                break
        else:
            break
        problem, vector, gradient, length, steps = moved, moved.vector(), ahead, reached, steps + 1
    curvatures = torch.linalg.eigvalsh(dense_hessian(problem)) if small else None
    flatness = 0.0
    if length > 0:
        bent = Hessian(problem)
        norm = float(curvatures.abs().max()) if curvatures is not None else LinearModel.krylov(bent, gradient, 20).norm
        flatness = float(bent(gradient).norm()) / (norm * length) if norm > 0 else 0.0
        products += bent.products
    kind: Kind = "critical" if length <= tolerance else "gradient-flat" if flatness <= FLAT else "unfinished"
    return SearchEnd(kind, vector, problem.risk(), length, flatness, curvatures, steps, products)


@dataclass(frozen=True)
class LinearModel:
    """g + H p on a space of steps p, by the singular values of H there.

    directions: (k, p) orthonormal steps; strengths: (k,) their singular values s_i; slopes: (k,) g along the images.
    length: |g|. norm: |H|, from below where the space is not the whole one.
    """

    directions: Tensor
    strengths: Tensor
    slopes: Tensor
    length: float
    norm: float

    @classmethod
    def dense(cls, hessian: Tensor, gradient: Tensor) -> LinearModel:
        """Build it on the whole space from the eigenvalues of H (p, p): s_i = |lambda_i|."""
        values, vectors = torch.linalg.eigh(hessian)
        slopes = torch.where(values < 0, -1.0, 1.0).to(gradient) * (vectors.T @ gradient)
        return cls(vectors.T, values.abs(), slopes, float(gradient.norm()), float(values.abs().max()))

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
        return cls(right.to(basis) @ basis[:done], strengths.to(basis), (length * left[0]).to(basis), length, norm)

    def least(self, damping: float) -> tuple[Tensor, float]:
        """Return the p (p,) that minimises |H p + g|^2 + damping |H|^2 |p|^2, and |H p + g| there.

        Directions whose singular value is below 1e-14 of the largest are left out, as by the pseudo-inverse.

        >>> hessian, g = torch.diag(torch.tensor([2.0, -1.0, 0.0])).double(), torch.ones(3, dtype=torch.float64)
        >>> step, left = LinearModel.krylov(lambda v: hessian @ v, g, 10).least(0.0)
        >>> [round(float(value), 6) + 0.0 for value in step], round(left, 6)
        ([-0.5, 1.0, 0.0], 1.0)
        """
        kept = self.strengths > 1e-14 * self.norm
        inverse = torch.where(kept, self.strengths / (self.strengths**2 + damping * self.norm**2), 0.0)
        weights = -inverse * self.slopes
        outside = max(self.length**2 - float(self.slopes.square().sum()), 0.0)
        residue = self.slopes + self.strengths * weights
        return weights @ self.directions, math.sqrt(outside + float(residue.square().sum()))


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


def in_double(problem: Problem, *, data: Data | None = None) -> Problem:
    """Return a copy in float64 and evaluation mode: single precision cannot tell a gradient of 1e-8 from zero."""
    chosen = (problem.train if data is None else data).in_memory()
    y = chosen.targets
    train = replace(chosen, x=chosen.x.double(), y=y.double() if y.is_floating_point() else y)  # type: ignore[union-attr]
    return replace(problem, model=problem.copy().eval().double(), train=train, test=None)
