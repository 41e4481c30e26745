"""A saddle of a deep linear network whose middle layers are invertible has a way down along a negative curvature.

Statement: where the product of the middle factors has full rank, every critical point that is not a global minimum has
a negative Hessian eigenvalue. For the critical points of r chosen eigenvectors their number is
#{(i in I, j not in I): lambda_j > lambda_i} + (p - r)(dy - r), whatever the depth.
Source: Kawaguchi (2016), theorem 2.3 (iv) (recalled, not checked against the paper); lecture, "Linear Networks". The
number was derived for this library.
Assumptions: middle factors of full rank; Kawaguchi's on the data, which hold for the data drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.solvable import linear_networks


@dataclass(frozen=True)
class Case:
    """A network inputs-width-...-width-outputs of `depth` layers.

    singular: where no eigenvector is learned, the zero network stands for that set. single: only the first layer may
    move, in which the risk is convex.
    """

    inputs: int = 4
    width: int = 3
    outputs: int = 3
    depth: int = 3
    samples: int = 30
    singular: bool = False
    single: bool = False

    def data(self) -> tuple[Tensor, Tensor]:
        """Return x (n, dx) and y (n, dy), a linear function of x and noise."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.samples, self.inputs, generator=generator, dtype=torch.float64)
        mixing = torch.randn(self.inputs, self.outputs, generator=generator, dtype=torch.float64)
        noise = torch.randn(self.samples, self.outputs, generator=generator, dtype=torch.float64)
        return x, x @ mixing + 0.3 * noise


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    total = saddles = 0
    for size in range(min(case.width, case.outputs) + 1):
        for chosen in combinations(range(case.outputs), size):  # 0 has the largest eigenvalue
            others = [j for j in range(case.outputs) if j not in chosen]
            ways = sum(j < i for i in chosen for j in others) + (case.width - size) * len(others)
            total, saddles = total + ways, saddles + (ways > 0)
    return Prediction("equals", float(total), constants={"saddles": float(saddles)})


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    x, y = case.data()
    indices = []
    for point in linear_networks.critical_points(x, y, case.width, depth=case.depth, generator=generator):
        weights: Sequence[Tensor] = point.weights
        if case.singular and not point.chosen:
            weights = [torch.zeros_like(weight) for weight in weights]
        moving = weights[:1] if case.single else weights
        shapes = [weight.shape for weight in moving]

        def risk(
            vector: Tensor, shapes: list[torch.Size] = shapes, rest: Sequence[Tensor] = weights[len(moving) :]
        ) -> Tensor:
            pieces = torch.split(vector, [shape.numel() for shape in shapes])
            return linear_networks.risk([*(p.view(s) for p, s in zip(pieces, shapes, strict=True)), *rest], x, y)

        vector = torch.cat([weight.reshape(-1) for weight in moving])
        values = torch.linalg.eigvalsh(torch.func.jacrev(torch.func.grad(risk))(vector))
        # Zero curvatures carry roundings of 1e-15 of the largest; the true ones are of the size of the eigenvalues.
        indices.append(int((values < -1e-8 * values.abs().max()).sum()))
    text = f"dense Hessian at {len(indices)} points, {sum(i > 0 for i in indices)} with a way down"
    return exact("sum of the indices of all critical points", float(sum(indices)), method=text)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="A saddle of a deep linear network with invertible middle layers has a way down of negative curvature.",
    source="Kawaguchi (2016), theorem 2.3; lecture, Linear Networks",
    assumptions={"middle factors of full rank": lambda case: not case.singular},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    fails_on=lambda: Case(singular=True),
    # Layer by layer there is no way down: the risk is convex in every single layer.
    corrupted=lambda: Case(single=True),
    convincing=lambda: Case(inputs=6, width=5, outputs=5, depth=4, samples=100),
)
