"""A deep linear network has saddles without negative curvature; a shallow one has none.

Statement: for three layers or more the zero network is critical and its Hessian is zero, though better networks lie
arbitrarily near: lambda_min = 0. With two layers lambda_min = -sigma_max(Syx) < 0 there, as at every critical point
that is not a global minimum.
Source: Kawaguchi (2016), theorem 2.3 (iii, iv); lecture, "Linear Networks". Recalled, not checked against the paper.
Assumptions: three layers or more; linear units; Syx is not zero (else the zero network is a global minimum).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """A network of `widths` and data drawn with the generator; skip: an identity is added to every square layer."""

    widths: tuple[int, ...] = (4, 4, 4, 3)
    samples: int = 30
    skip: bool = False

    def data(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return x (n, dx) and y (n, dy), a linear function of x and noise of deviation 0.1."""
        x = torch.randn(self.samples, self.widths[0], generator=generator, dtype=torch.float64)
        mixing = torch.randn(self.widths[0], self.widths[-1], generator=generator, dtype=torch.float64)
        noise = torch.randn(self.samples, self.widths[-1], generator=generator, dtype=torch.float64)
        return x, x @ mixing + 0.1 * noise


def _predict(_case: Case, _generator: torch.Generator) -> Prediction:
    # 1e-9: the risk is of order one, its curvatures carry a few hundred roundings of 1e-16.
    return Prediction("equals", 0.0, tolerance=1e-9)


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    x, y = case.data(generator)
    shapes = [torch.Size((b, a)) for a, b in pairwise(case.widths)]
    size = sum(shape.numel() for shape in shapes)

    def risk(vector: Tensor) -> Tensor:
        pieces = torch.split(vector, [shape.numel() for shape in shapes])
        layers = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        if case.skip:
            layers = [w + torch.eye(len(w), dtype=w.dtype) if w.shape[0] == w.shape[1] else w for w in layers]
        output = reduce(lambda state, weight: state @ weight.T, layers, x)
        return 0.5 * (output - y).square().sum() / len(x)

    zero = torch.zeros(size, dtype=torch.float64)
    gradient = float(torch.func.grad(risk)(zero).norm())
    dense = torch.autograd.functional.hessian(risk, zero, vectorize=True)  # type: ignore[no-untyped-call]
    smallest = float(torch.linalg.eigvalsh(dense)[0])
    # That it is a saddle: a small step into the K-th order direction lowers the risk. All first singular pairs of Syx.
    left, _, right = torch.linalg.svd(y.T @ x / len(x), full_matrices=False)
    step = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
    for number, weight in enumerate(step):
        one = left[:, 0] if number == len(step) - 1 else torch.eye(weight.shape[0], dtype=torch.float64)[0]
        two = right[0] if number == 0 else torch.eye(weight.shape[1], dtype=torch.float64)[0]
        weight += torch.outer(one, two)
    fall = float(risk(zero) - risk(0.1 * torch.cat([weight.reshape(-1) for weight in step])))
    # A point with a gradient is not critical, and one that nothing lies below is no saddle: either spoils the number.
    value = smallest - gradient - max(0.0, -fall)
    return exact(
        "least curvature at the zero network",
        value,
        method=f"dense Hessian; gradient {gradient:.0e}; a step of 0.1 a layer lowers the risk by {fall:.1e}",
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="A linear network of three layers or more has saddles without negative curvature.",
    source="Kawaguchi (2016), theorem 2.3; lecture, Linear Networks",
    assumptions={"three layers or more": lambda case: len(case.widths) >= 4},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    fails_on=lambda: Case(widths=(4, 4, 3)),
    # With an identity in every square layer the zero residuals are no saddle any more (Hardt and Ma).
    corrupted=lambda: Case(skip=True),
    convincing=lambda: Case(widths=(6, 6, 6, 6, 6, 4), samples=100),
)
