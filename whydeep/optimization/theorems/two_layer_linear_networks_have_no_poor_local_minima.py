"""A linear network of two layers has no poor local minima: all its other critical points have a way down.

Statement: for R(W1, W2) = 1/(2n) sum_i |W2 W1 x_i - y_i|^2 with hidden width p, let Sxx, Sxy, Syy be the mean
products and (lambda_i, u_i) the eigenpairs of Syx Sxx^-1 Sxy. Each set I of r <= p eigenvectors gives critical points
W2 = [U_I, 0] C, W1 = C^-1 [U_I^T Syx Sxx^-1; 0] for every invertible C, with
risk 1/2 (tr Syy - sum_{i in I} lambda_i) and
index #{(i in I, j not in I): lambda_j > lambda_i} + (p - r)(dy - r), the number of negative Hessian eigenvalues.
The index is zero only where I holds the min(p, dy) largest: every critical point of higher risk is a saddle.
Source: Baldi and Hornik (1989); Kawaguchi (2016); lecture, "Linear Networks". The index formula was derived for this
library and is checked here, not taken from a paper.
Assumptions: linear hidden units, Sxx and Sxy of full rank, distinct eigenvalues, dx >= dy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """Data (samples, inputs) and (samples, outputs), drawn with `seed`, and a network inputs-width-outputs.

    units: "linear" or "relu". tilt: the angle in radians by which the first eigenvector is turned towards the second.
    """

    inputs: int = 5
    outputs: int = 4
    width: int = 3
    samples: int = 60
    seed: int = 0
    units: str = "linear"
    tilt: float = 0.0

    def data(self) -> tuple[Tensor, Tensor]:
        """Return x and y: y a linear function of x with singular values 1, 2, 3, ... and noise of deviation 1/2."""
        generator = torch.Generator().manual_seed(self.seed)
        x = torch.randn(self.samples, self.inputs, generator=generator, dtype=torch.float64)
        mixing = torch.randn(self.inputs, self.outputs, generator=generator, dtype=torch.float64)
        left, _, right = torch.linalg.svd(mixing, full_matrices=False)
        strengths = torch.arange(1, left.shape[1] + 1, dtype=torch.float64)
        noise = torch.randn(self.samples, self.outputs, generator=generator, dtype=torch.float64)
        return x, x @ (left * strengths) @ right + 0.5 * noise


def _subsets(case: Case) -> Iterator[tuple[int, ...]]:
    for r in range(min(case.width, case.outputs) + 1):
        yield from combinations(range(case.outputs), r)


def _explained(case: Case) -> Tensor:
    """Return Syx Sxx^-1 Sxy, (outputs, outputs)."""
    x, y = case.data()
    explained: Tensor = y.T @ x @ torch.linalg.solve(x.T @ x, x.T @ y) / len(x)
    return explained


def _linear(case: Case) -> bool:
    return case.units == "linear"


def _full_rank(case: Case) -> bool:
    x, y = case.data()
    ranks = (int(torch.linalg.matrix_rank(x)), int(torch.linalg.matrix_rank(x.T @ y)))
    return ranks == (case.inputs, case.outputs)


def _distinct(case: Case) -> bool:
    values = torch.linalg.eigvalsh(_explained(case))
    # Rounding moves an eigenvalue by 1e-15 of the largest; a gap above 1e-6 of it leaves the index beyond doubt.
    return bool((values.diff() > 1e-6 * values[-1]).all())


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    _, y = case.data()
    values = torch.linalg.eigvalsh(_explained(case)).tolist()
    total = float(y.square().sum()) / len(y)
    risks, indices = [], []
    for chosen in _subsets(case):
        others = [j for j in range(case.outputs) if j not in chosen]
        risks.append(0.5 * (total - sum(values[i] for i in chosen)))
        swaps = sum(values[j] > values[i] for i in chosen for j in others)
        indices.append(swaps + (case.width - len(chosen)) * len(others))
    least = min(risks)
    # 1e-9 of the value: the risks and gradients are computed in double precision with a few hundred roundings.
    value = sum((1 + index) * risk for risk, index in zip(risks, indices, strict=True))
    return Prediction(
        "equals",
        value,
        tolerance=1e-9 * value,
        constants={
            "critical points": len(risks),
            "poor local minima": sum(r > least and not i for r, i in zip(risks, indices, strict=True)),
            "downhill directions of all": sum(indices),
            "least risk": least,
        },
    )


def _critical_points(case: Case, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (W1, W2) for every set of eigenvectors, each with its own random C."""
    x, y = case.data()
    regression = torch.linalg.lstsq(x, y).solution.T  # Syx Sxx^-1
    # The eigenvectors are the right singular vectors of the fitted outputs, in ascending order.
    vectors = torch.linalg.svd(x @ regression.T, full_matrices=False).Vh.T.flip(1)
    first, second = vectors[:, 0].clone(), vectors[:, 1].clone()
    vectors[:, 0] = math.cos(case.tilt) * first + math.sin(case.tilt) * second
    for chosen in _subsets(case):
        frame = torch.zeros(case.outputs, case.width, dtype=torch.float64)
        frame[:, : len(chosen)] = vectors[:, list(chosen)]
        # Orthogonal times diagonal in [1/2, 2]: invertible, and well conditioned for every seed.
        turn, _ = torch.linalg.qr(torch.randn(case.width, case.width, generator=generator, dtype=torch.float64))
        mixer = turn * torch.exp2(2 * torch.rand(case.width, generator=generator, dtype=torch.float64) - 1)
        yield torch.linalg.solve(mixer, frame.T @ regression), frame @ mixer


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    x, y = case.data()
    unit: nn.Module = nn.Identity() if case.units == "linear" else nn.ReLU()
    sizes = ((case.inputs, case.width), (case.width, case.outputs))
    # The parameters are set below; drawing them would shift PyTorch's global generator.
    first, second = (nn.utils.skip_init(nn.Linear, *size, bias=False).double() for size in sizes)  # type: ignore[no-untyped-call]
    for layer in (first, second):
        nn.init.zeros_(layer.weight)
    model = nn.Sequential(first, unit, second)
    problem = Problem(model, Data(x, y), loss="squared")
    split = case.width * case.inputs

    def risk(vector: Tensor) -> Tensor:
        names = [name for name, _ in model.named_parameters()]
        shapes = [value.shape for value in model.parameters()]
        pieces = torch.split(vector, [split, len(vector) - split])
        weights = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        return problem.per_sample(torch.func.functional_call(model, weights, (x,)), y).mean()

    value, risks = 0.0, []
    for inner, outer in _critical_points(case, generator):
        vector = torch.cat([inner.reshape(-1), outer.reshape(-1)])
        dense = torch.autograd.functional.hessian(risk, vector, vectorize=True)  # type: ignore[no-untyped-call]
        curvatures = torch.linalg.eigvalsh(dense)
        # The family of C makes many curvatures zero up to rounding; the true ones are of the size of the eigenvalues.
        index = int((curvatures < -1e-9 * curvatures.abs().max()).sum())
        here = problem.at(vector)
        risks.append((here.risk(), index))
        value += (1 + index) * risks[-1][0] + float(here.gradient().norm())
    least = min(risk for risk, _ in risks)
    poor = sum(risk > least * (1 + 1e-9) and index == 0 for risk, index in risks)
    return exact(
        "sum over critical points of risk x (1 + downhill directions) + gradient",
        value,
        method=f"dense Hessian at {len(risks)} points: {poor} poor minima",
        evaluations=len(risks),
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="A two-layer linear network has no poor local minima: every critical point but the best is a saddle.",
    source="Kawaguchi (2016), theorem 2.3; Baldi and Hornik (1989); lecture, Linear Networks",
    assumptions={
        "hidden units are linear": _linear,
        "E XX^T and E XY^T have full rank": _full_rank,
        "distinct eigenvalues": _distinct,
    },
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # With rectified units the points are no longer critical, and a network whose units are all off is a poor minimum.
    fails_on=lambda: Case(units="relu"),
    corrupted=lambda: Case(tilt=0.01),
    convincing=lambda: Case(inputs=8, outputs=6, width=4, samples=200),
)
