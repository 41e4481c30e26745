"""Search for critical points of any index: the length of the gradient is minimised, and the end is called by its name.

Descent on the risk finds minima only. A step p that minimises |H p + g| (Newton-MR) goes to critical points of every
kind, and since <p, H g> <= 0 it lowers |grad R|^2. Searches of this sort often end where |grad R|^2 is stationary and
grad R is not zero, H g = 0: gradient-flat points (Frye et al. 2021), which earlier work counted as critical. So |g| and
|H g|/(|H| |g|) are reported, and `kind` says "critical" only below a strict tolerance. Critical points of many energies
are met by asking for an index: the search then first walks uphill along so many of the lowest curvatures (`climb`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.parameters import named, unflatten
from whydeep.core.problem import Problem

from .climbing import climb, gradient_at
from .dense_hessian import dense_hessian
from .linear_model import LinearModel
from .spectra.hessian import Hessian

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
            further = "; more steps (most) or a larger tolerance may end it" if self.kind == "unfinished" else ""
            return f"No critical point: the search ended {self.kind} ({lengths}){further}."
        if self.curvatures is None:
            return f"A critical point ({lengths}); its index was not computed."
        count = int((self.curvatures < -self.zero).sum())
        flat = int((self.curvatures.abs() <= self.zero).sum())
        return f"A critical point ({lengths}): {count} of {len(self.curvatures)} curvatures below zero, {flat} zero."


def find_critical_point(
    problem: Problem,
    *,
    index: int | None = None,
    tolerance: float = 1e-8,
    most: int = 200,
    krylov: int = 200,
    dense_limit: int = 1000,
    data: Data | None = None,
) -> SearchEnd:
    """Search from the parameters of `problem.model` for a point where the gradient of the risk is zero.

    In float64 and evaluation mode, on `data` (the training data by default). Every step minimises
    |H p + g|^2 + mu |p|^2, and is bent along the valley by the second derivative of the gradient; the damping mu falls
    where |g|^2 falls as the linear model promises and rises where it does not (Levenberg and Marquardt), which costs
    two gradients each time. So |g| never rises, singular H included. With at most `dense_limit` parameters H is formed
    and its eigenvalues are returned; beyond that the step is sought in a Krylov space of at most `krylov` products, and
    the index is left out. `most` steps at most.
    index: how many downhill directions the point should have. The search then begins with at most `most` steps towards
    saddles of that index (`climb`), and ends as above; where that leads to another index, the index found is reported.
    Without it the search goes to the critical point that is near. The more downhill directions, the higher the energy.
    Where units are rectified the gradient jumps and a search may end unfinished: it says so. On a smooth network that
    could fit its data exactly, or whose units can saturate, many searches run off to infinity, where the gradient
    vanishes without a critical point: give more samples than the network can fit. Along nearly flat directions steps
    are short, and the tolerance is strict: of six networks 3-4-2 of tanh units on random targets the default 200 steps
    bring two to a critical point and 1,000 steps three; the others end gradient-flat or with units that saturate.

    Raises `InputError` when the gradient at the start is not finite or an index is asked of more than `dense_limit`
    parameters, `ValueError` on a tolerance or counts that are not positive and an index outside 0..p.
    Cost of a step: p or `krylov` products and two gradients or four (attention layers have dear products: with 500
    parameters and 300 samples some 10 seconds a step; dense_limit=0 takes `krylov` products instead); memory
    2 min(p, krylov) * p numbers.
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
    small = len(vector) <= dense_limit
    products, steps = 0, 0
    if index is not None:
        if not 0 <= index <= len(vector):
            raise ValueError(f"index={index}; give a number of downhill directions from 0 to {len(vector)}")
        if not small:
            raise InputError(
                f"an index is asked of {len(vector):,} parameters and the dense limit is {dense_limit:,}",
                "leave the index out, give a smaller network, or raise dense_limit",
            )
        problem, steps = climb(problem, index, tolerance=tolerance, most=most)
        vector, gradient = problem.vector(), problem.gradient()
    length, last = float(gradient.norm()), steps + most
    damping = 1e-3  # of |H|^2
    while length > tolerance and steps < last:
        if small:
            model = LinearModel.dense(dense_hessian(problem), gradient)
        else:
            hessian = Hessian(problem)
            model = LinearModel.krylov(hessian, gradient, krylov)
            products += hessian.products
        while damping < 1e8:
            step, left = model.least(damping)
            step = model.corrected(step, partial(gradient_at, problem, vector), damping)
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


def in_double(problem: Problem, *, data: Data | None = None) -> Problem:
    """Return a copy in float64 and evaluation mode: single precision cannot tell a gradient of 1e-8 from zero."""
    chosen = (problem.train if data is None else data).in_memory()
    y = chosen.targets
    train = replace(chosen, x=chosen.x.double(), y=y.double() if y.is_floating_point() else y)  # type: ignore[union-attr]
    return replace(problem, model=problem.copy().eval().double(), train=train, test=None)
