"""Search for critical points of any index: the length of the gradient is minimised, and the end is called by its name.

Descent on the risk finds minima only. A step p that minimises |H p + g| (Newton-MR) goes to critical points of every
kind, and since <p, H g> <= 0 it lowers |grad R|^2. Searches of this sort often end where |grad R|^2 is stationary and
grad R is not zero, H g = 0: gradient-flat points (Frye et al. 2021), which earlier work counted as critical. Others run
off to infinity, where gradients vanish. So |g|, |H g|/(|H| |g|) and the length of the next step of Newton's method are
reported, and `kind` says "critical" only where both lengths are small. A search that ends elsewhere is begun anew by a
walk that does not mind longer gradients, towards saddles of a chosen index (`climb`), and critical points of many
energies are met by asking for an index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.parameters import named, unflatten
from whydeep.core.problem import Problem

from .climbing import climb
from .dense_hessian import dense_hessian
from .gradient_search import FLAT, shorten_gradient
from .linear_model import LinearModel
from .spectra.hessian import Hessian

Kind = Literal["critical", "far", "gradient-flat", "unfinished"]

NEAR = 1e-2
"""A step of Newton's method longer than this part of the parameters at the start leads away: g is small, not at a zero.

At a zero of order m, |g| ~ t^m at the distance t, the step is t/m: 7e-4 at |g| = 1e-8 and m = 3. Where g decays as
exp(-t) towards infinity the step has length 1, however small g is.
"""

ZERO = 1e-7
"""Eigenvalues within +- this part of the largest count as zero: the roundings of H and sqrt(|g|)."""

WALKS: tuple[tuple[int, int | None], ...] = ((1, 0), (2, 0), (1, 1), (2, 1), (4, 0), (8, None))
"""Where a search is begun anew: the parameters at the start divided by the first number, and a walk towards saddles of
as many downhill directions as there are at that place less the second (None: no walk). Small networks saturate less."""

CLIMB = 30
"""Steps of such a walk at most: on 3-4-2 networks longer ones led further away without ending more often."""


@dataclass(frozen=True)
class SearchEnd:
    """Where a search for a critical point ended.

    kind: "critical" (|g| <= tolerance and the zero near), "far" (|g| <= tolerance, but Newton's next step is long: no
    zero is near, as on the way to infinity), "gradient-flat" (|g| is not small, but H g is: stuck) or "unfinished".
    vector: (p,) parameters, float64. energy: the risk there. gradient_norm: |g|.
    flatness: |H g|/(|H| |g|), 0 where g = 0. distance: the length of Newton's next step, the least p with H p = -g.
    curvatures: (p,) ascending eigenvalues of H, None beyond `dense_limit`.
    steps: taken, over all walks. products: of the Hessian with a vector, beside the dense matrices.
    walks: how many were begun anew because the search before had not ended at a critical point.
    """

    kind: Kind
    vector: Tensor
    energy: float
    gradient_norm: float
    flatness: float
    distance: float
    curvatures: Tensor | None
    steps: int
    products: int
    walks: int = 0

    @property
    def critical(self) -> bool:
        """Whether the point may be called critical."""
        return self.kind == "critical"

    @property
    def zero(self) -> float:
        """Eigenvalues within +- this are counted as zero: `ZERO` of the largest."""
        return 0.0 if self.curvatures is None else ZERO * float(self.curvatures.abs().max())

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
            further = {
                "unfinished": "; more steps (most) may end it",
                "far": f"; Newton's next step has length {self.distance:.2g}, a smaller tolerance searches on",
            }.get(self.kind, "")
            ended = "far from a zero" if self.kind == "far" else self.kind
            return f"No critical point: the search ended {ended} ({lengths}){further}."
        found = "A critical point" + (f" on walk {self.walks} from the start" if self.walks else "")
        if self.curvatures is None:
            return f"{found} ({lengths}); its index was not computed."
        count = int((self.curvatures < -self.zero).sum())
        flat = int((self.curvatures.abs() <= self.zero).sum())
        return f"{found} ({lengths}): {count} of {len(self.curvatures)} curvatures below zero, {flat} zero."


def find_critical_point(
    problem: Problem,
    *,
    index: int | None = None,
    tolerance: float = 1e-8,
    most: int = 200,
    walks: int = len(WALKS),
    krylov: int = 200,
    dense_limit: int = 1000,
    data: Data | None = None,
) -> SearchEnd:
    """Search from the parameters of `problem.model` for a point where the gradient of the risk is zero.

    In float64 and evaluation mode, on `data` (the training data by default). First |g| is minimised by damped steps
    that never let it rise (`shorten_gradient`), `most` at most: this goes to the critical point that is near, where it
    does not end gradient-flat or run off. Then, with at most `dense_limit` parameters, up to `walks` more searches
    begin with a short walk towards saddles of as many downhill directions as there are (`climb`), from the start or
    from smaller weights (`WALKS`), and end as the first. The first critical point is returned: the later the walk the
    farther, the last may be the network of a constant output; where there is none, the end of the first search. Beyond
    `dense_limit` a step is sought in a Krylov space of at most `krylov` products, there are no walks, and the index is
    left out.
    index: how many downhill directions the point should have. One search is made, which begins with the walk towards
    saddles of that index; where that leads to another, the index found is reported. The more downhill directions, the
    higher the energy.
    Where units are rectified the gradient jumps and a search may end unfinished: it says so. On a smooth network that
    could fit its data exactly, or whose units can saturate, many searches run off to infinity, where the gradient
    vanishes without a critical point: give more samples than the network can fit.

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
    if not tolerance > 0 or most < 1 or krylov < 1 or not 0 <= walks <= len(WALKS):
        given = f"tolerance={tolerance}, most={most}, krylov={krylov}, walks={walks}"
        raise ValueError(f"{given}; give the first three above zero, and 0 to {len(WALKS)} walks")
    problem = in_double(problem, data=data)
    gradient = problem.gradient()
    if not bool(torch.isfinite(gradient).all()):
        pieces = unflatten(gradient, named(problem.model))
        bad = [name for name, piece in pieces.items() if not bool(torch.isfinite(piece).all())]
        raise InputError(f"the gradient of {', '.join(bad[:5])} holds NaN or inf", "start from other weights")
    size = len(gradient)
    dense = size <= dense_limit
    if index is not None:
        if not 0 <= index <= size:
            raise ValueError(f"index={index}; give a number of downhill directions from 0 to {size}")
        if not dense:
            raise InputError(
                f"an index is asked of {size:,} parameters and the dense limit is {dense_limit:,}",
                "leave the index out, give a smaller network, or raise dense_limit",
            )
    reach = float(problem.vector().norm()) or 1.0  # parameters that are all zero have no scale of their own
    first: SearchEnd | None = None
    steps = products = 0
    starts = iter([(problem, index)]) if index is not None else _starts(problem, walks if dense else 0)
    climbing = most if index is not None else min(most, CLIMB)
    for begun, (start, asked) in enumerate(starts):
        place, climbed = (start, 0) if asked is None else climb(start, asked, tolerance=tolerance, most=climbing)
        found = shorten_gradient(place, tolerance=tolerance, most=most, krylov=krylov, dense=dense)
        end = _end(found.problem, tolerance=tolerance, krylov=krylov, dense=dense, reach=reach)
        steps, products = steps + climbed + found.steps, products + found.products + end.products
        first = replace(end if first is None or end.critical else first, walks=begun)
        if end.critical:
            break
    assert first is not None
    return replace(first, steps=steps, products=products)


def _starts(problem: Problem, walks: int) -> Iterator[tuple[Problem, int | None]]:
    """Yield the start without an index, then a place and the index that is asked there for the first of the `WALKS`."""
    yield problem, None
    vector = problem.vector()
    for divisor, fewer in WALKS[:walks]:
        place = problem.at(vector / divisor)
        if fewer is None:
            yield place, None
            continue
        values = torch.linalg.eigvalsh(dense_hessian(place))
        yield place, max(0, int((values < -ZERO * values.abs().max()).sum()) - fewer)


def _end(problem: Problem, *, tolerance: float, krylov: int, dense: bool, reach: float) -> SearchEnd:
    """Return what is to be said of the place where a search ended; reach: the length of the parameters at the start."""
    gradient = problem.gradient()
    length = float(gradient.norm())
    hessian = Hessian(problem)
    matrix = dense_hessian(problem) if dense else None
    flatness = distance = 0.0
    if length > 0:
        if matrix is None:
            model = LinearModel.krylov(hessian, gradient, krylov)
        else:
            model = LinearModel.dense(matrix, gradient)
        flatness = float(model.along(gradient).norm()) / (model.norm * length) if model.norm > 0 else 0.0
        # Damped below 1e-11 of |H|: the zero modes of symmetries, which rounding leaves at 1e-13, lead nowhere.
        distance = float(model.least(1e-22)[0].norm())
    kind: Kind = "gradient-flat" if flatness <= FLAT else "unfinished"
    if length <= tolerance:
        kind = "critical" if distance <= NEAR * reach else "far"
    curvatures = None if matrix is None else torch.linalg.eigvalsh(matrix)
    risk = problem.risk()
    return SearchEnd(kind, problem.vector(), risk, length, flatness, distance, curvatures, 0, hessian.products)


def in_double(problem: Problem, *, data: Data | None = None) -> Problem:
    """Return a copy in float64 and evaluation mode: single precision cannot tell a gradient of 1e-8 from zero."""
    chosen = (problem.train if data is None else data).in_memory()
    y = chosen.targets
    train = replace(chosen, x=chosen.x.double(), y=y.double() if y.is_floating_point() else y)  # type: ignore[union-attr]
    return replace(problem, model=problem.copy().eval().double(), train=train, test=None)
