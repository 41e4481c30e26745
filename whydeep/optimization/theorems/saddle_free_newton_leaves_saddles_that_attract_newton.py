"""Saddle-free Newton leaves saddles that attract Newton's method.

Statement: beside a strict saddle, Newton's step -H^-1 g leads back to it, along negative curvature too; with |H| in
place of H the step leads away there, and on a linear network, whose other critical points are strict saddles, it ends
at the least risk.
Source: Dauphin et al. (2014); lecture, "A Dream". The least risk is the closed form of reduced-rank regression.
Assumptions: the start is beside the saddle, not the saddle itself; the saddle is strict (two linear layers).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.climbing import saddle_free_step
from whydeep.optimization.landscape.solvable import linear_networks


@dataclass(frozen=True)
class Case:
    """A linear network inputs-width-outputs, one start beside every second of its critical points, the best left out.

    noise: deviation of the start from the saddle. absolute: |H| and not H.
    """

    inputs: int = 4
    width: int = 2
    outputs: int = 3
    samples: int = 40
    noise: float = 1e-2
    steps: int = 30
    absolute: bool = True


def _data(case: Case) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(case.samples, case.inputs, generator=generator, dtype=torch.float64)
    mixing = torch.randn(case.inputs, case.outputs, generator=generator, dtype=torch.float64)
    return x, x @ mixing + 0.3 * torch.randn(case.samples, case.outputs, generator=generator, dtype=torch.float64)


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    x, y = _data(case)
    value = linear_networks.least_risk(x, y, case.width)
    # The damping leaves linear convergence, 1e-5 of the value after so many steps; the next critical value lies tens of
    # per cent above.
    return Prediction("equals", value, tolerance=1e-3 * value)


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    x, y = _data(case)
    ends = []
    for point in linear_networks.critical_points(x, y, case.width, generator=generator)[1::2]:
        shapes = [weight.shape for weight in point.weights]

        def risk(vector: Tensor, shapes: list[torch.Size] = shapes) -> Tensor:
            pieces = torch.split(vector, [shape.numel() for shape in shapes])
            return linear_networks.risk([p.view(s) for p, s in zip(pieces, shapes, strict=True)], x, y)

        vector = torch.cat([weight.reshape(-1) for weight in point.weights])
        vector = vector + case.noise * torch.randn(len(vector), generator=generator, dtype=torch.float64)
        for _ in range(case.steps):
            gradient = torch.func.grad(risk)(vector)
            dense = torch.func.jacrev(torch.func.grad(risk))(vector)
            if case.absolute:
                # The family of equal networks makes curvatures of zero: a damping of 2 % keeps their steps short.
                values, vectors = torch.linalg.eigh(dense)
                vector = vector + saddle_free_step(values, vectors.T, gradient, damping=0.02)
            else:
                vector = vector - torch.linalg.pinv(dense, rtol=1e-6, hermitian=True) @ gradient
        ends.append(float(risk(vector)))
    return exact(
        "highest risk at the end",
        max(ends),
        method=f"{case.steps} steps beside each of {len(ends)} saddles, ends from {min(ends):.6g} to {max(ends):.6g}",
        evaluations=case.steps * len(ends),
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="Newton's method with the absolute value of the Hessian leaves saddles that attract Newton's method.",
    source="Dauphin et al. (2014); lecture, A Dream",
    assumptions={"the start is beside the saddle": lambda case: case.noise > 0},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # At the saddle itself the gradient is zero, and so is every step.
    fails_on=lambda: Case(noise=0.0, steps=5),
    corrupted=lambda: Case(absolute=False, steps=20),
    convincing=lambda: Case(inputs=6, width=3, outputs=5, samples=100, noise=1e-3, steps=200),
)
