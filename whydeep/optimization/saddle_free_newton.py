"""Saddle-free Newton: Newton's method with the absolute value of the Hessian, which saddles do not attract."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.evaluation import outputs
from whydeep.core.problem import Problem
from whydeep.core.training import Callback, Outcome, Progress, Status, Training

from .counts import check_counts
from .landscape.climbing import saddle_free_step
from .landscape.dense_hessian import dense_hessian
from .landscape.spectra.hessian import Hessian


@dataclass(frozen=True)
class SaddleFreeNewton:
    """Minimise the risk by w <- w - (|H| + damping |H|_2 I)^-1 g, |H| = sum |lambda_i| v_i v_i^T.

    Newton's own step -H^-1 g goes towards the critical point at hand, saddles included: along a direction of negative
    curvature it climbs. With |lambda| it descends there, by as much. Full batch, evaluation mode, one step a pass.

    steps: at most. damping: the first one, relative to the largest |eigenvalue|; it falls threefold after a step that
    lowers the risk by a tenth of what its slope promises at least, and rises fourfold until one lowers it at all.
    tolerance: converged when |g| is at most this. krylov: with more than `dense_limit` parameters the step is sought
    in span{g, Hg, ...} of so many products (Dauphin's form); with fewer the whole Hessian is formed.

    History: "loss", "seconds", for classes "error". The risk never rises.
    Raises `ValueError` on counts that are no whole numbers or below 1, or tolerance or damping that are not positive.
    Source: Dauphin et al. (2014), algorithm 1; there the damping is chosen among a few powers of ten at each step.
    Cost of a step: min(p, krylov) products, an eigenvalue problem of that size, a few risks.

    >>> from whydeep.core import Data
    >>> from whydeep.networks import linear
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> solver = SaddleFreeNewton(steps=10, tolerance=1e-4)
    >>> solver.train(Problem(linear(1, 1), Data(x, 2 * x), loss="squared")).outcome.converged
    True
    """

    steps: int = 50
    damping: float = 1e-2
    tolerance: float = 1e-6
    krylov: int = 100
    dense_limit: int = 600
    monitor: int = 10_000

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, krylov=self.krylov, monitor=self.monitor)
        check_counts(least=0, dense_limit=self.dense_limit)
        if not (self.tolerance > 0 and self.damping > 0):
            raise ValueError(f"tolerance={self.tolerance}, damping={self.damping}; give both above zero")

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model` from its present parameters; nothing in it is random."""
        del generator  # the protocol passes one
        vector, damping, seconds = problem.vector(), self.damping, 0.0
        here = problem.at(vector)
        watched = problem.train.take(torch.arange(min(self.monitor, len(problem.train))))
        history: dict[str, list[float]] = {"loss": [], "seconds": []}

        def record() -> None:
            output = outputs(here.model, watched)
            loss = float(problem.per_sample(output, watched.targets).cpu().double().mean())  # MPS has no doubles
            history["loss"].append(loss)
            history["seconds"].append(seconds)
            if watched.classes is not None:
                wrong = float((output.argmax(1) != watched.targets).cpu().double().mean())
                history.setdefault("error", []).append(wrong)

        record()
        outcome = Outcome(Status.BUDGET_SPENT, f"{self.steps} steps done")
        if not math.isfinite(history["loss"][0]):
            outcome = Outcome(Status.DIVERGED, "the risk is not finite at the start")
        risk = here.risk() if not outcome.diverged else math.inf
        for done in range(1, self.steps + 1):
            if outcome.diverged:
                break
            began = time.perf_counter()
            gradient = here.gradient()
            length = float(gradient.norm())
            if length <= self.tolerance:
                outcome = Outcome(Status.CONVERGED, f"the gradient's length is {length:.1e} after {done - 1} steps")
                break
            values, directions = self._curvatures(here, gradient)
            found = False
            while damping < 1e12:
                step = saddle_free_step(values, directions, gradient, damping=damping)
                moved = problem.at(vector + step)
                reached, slope = moved.risk(), float(gradient @ step)
                if reached < risk:  # false for what is not a number
                    damping = max(damping / 3, 1e-12) if reached <= risk + 0.1 * slope else damping
                    vector, here, risk, found = moved.vector(), moved, reached, True
                    break
                damping *= 4
            seconds += time.perf_counter() - began
            if not found:
                reason = f"no step lowers the risk any more; the gradient's length is {length:.1e}"
                outcome = Outcome(Status.STOPPED_EARLY, reason)
                break
            record()
            if callback is not None and callback(Progress(done, self.steps, history["loss"][-1])):
                outcome = Outcome(Status.INTERRUPTED, f"stopped by the callback at step {done}")
                break
        here.model.zero_grad(set_to_none=True)
        return Training(
            here.model,
            {name: torch.tensor(values, dtype=torch.float64) for name, values in history.items()},
            outcome,
            seconds,
        )

    def _curvatures(self, problem: Problem, gradient: Tensor) -> tuple[Tensor, Tensor]:
        if len(gradient) <= self.dense_limit:
            values, vectors = torch.linalg.eigh(dense_hessian(problem))
            return values, vectors.T
        return ritz_pairs(Hessian(problem), gradient, self.krylov)


def ritz_pairs(product: Callable[[Tensor], Tensor], start: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (k,) and vectors (k, p) of a symmetric matrix on span{b, A b, ..., A^(k-1) b}, b = `start`.

    Lanczos with every vector made orthogonal to all earlier ones twice; k <= most products.
    """
    basis = [start / start.norm()]
    images = []
    while True:
        images.append(product(basis[-1]))
        ahead = images[-1]
        stacked = torch.stack(basis)
        for _ in range(2):
            ahead = ahead - stacked.T @ (stacked @ ahead)
        # Below sqrt(p) roundings what is left is noise: the space is closed.
        closed = float(ahead.norm()) <= torch.finfo(start.dtype).eps * math.sqrt(len(start)) * float(images[-1].norm())
        if closed or len(basis) == min(most, len(start)):
            break
        basis.append(ahead / ahead.norm())
    square = torch.stack(basis) @ torch.stack(images).T
    values, vectors = torch.linalg.eigh((square + square.T) / 2)
    return values, vectors.T @ torch.stack(basis)
