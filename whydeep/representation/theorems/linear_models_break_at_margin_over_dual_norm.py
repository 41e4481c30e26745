"""A linear classifier's decision changes at a perturbation of margin over dual norm, and not before.

For f(x) = W x + b the least perturbation in the maximum norm that changes the decision y at x is

    r(x) = min over j != y of (f_y(x) - f_j(x)) / ||w_y - w_j||_1,

reached at r sign(w_j - w_y) (Hoelder's inequality with equality). It shrinks as the dimension grows at a given
margin and given entries of w: small perturbations add up, which is the explanation of fragility by linearity.

Source: Goodfellow, Shlens and Szegedy 2015, section 3 (recalled, not checked against the paper); Hoelder's inequality.
Assumption: the model is affine. A network with a curved decision boundary breaks elsewhere.
Predicted from the weights alone; measured by the gradient attack, which sees the model only from outside, and
bisection of the radius.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement
from whydeep.core.verdict import Prediction
from whydeep.representation.adversarial import attack

WIDE = (-1e6, 1e6)
"""Bounds that no perturbation of the cases reaches: the statement is without bounds."""

TOLERANCE = 0.02
"""Relative. A bracket [h/2, h] that holds the radius r > h/2 is halved 7 times: its width is at most h/256 < r/128,
0.8 % of r. Only a radius below the first bracket [0, 0.05] is resolved less well, to 0.0004."""


class Bent(nn.Module):
    """An affine model plus `curvature` times the square of its scores; affine for curvature 0."""

    def __init__(self, weight: Tensor, bias: Tensor, curvature: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.curvature = curvature

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores (n, classes)."""
        scores = nn.functional.linear(x, self.weight, self.bias)
        return scores + self.curvature * scores.square()


@dataclass(frozen=True)
class Case:
    """A model on random samples that it labels itself; frozen: the share of entries that the perturbation is kept from.

    curvature bends the model; 0 is affine.
    """

    samples: int = 8
    dimension: int = 10
    classes: int = 3
    curvature: float = 0.0
    frozen: float = 0.0

    def model(self) -> Bent:
        """Return the model, the same at every call."""
        generator = torch.Generator().manual_seed(11)
        weight = torch.randn(self.classes, self.dimension, generator=generator, dtype=torch.float64)
        bias = torch.randn(self.classes, generator=generator, dtype=torch.float64)
        return Bent(weight, bias, self.curvature)

    def data(self) -> Data:
        """Return the samples with the labels that the model gives them."""
        generator = torch.Generator().manual_seed(12)
        x = torch.randn(self.samples, self.dimension, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            y = self.model()(x).argmax(1)
        return Data(x, y, "labelled by the model", classes=self.classes, bounds=WIDE)


def is_affine(case: Case) -> bool:
    """Check f((x + z)/2) = (f(x) + f(z))/2 on pairs of far-apart points, to rounding."""
    model = case.model()
    generator = torch.Generator().manual_seed(13)
    x, z = 10 * torch.randn(2, 100, case.dimension, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        middle, ends = model((x + z) / 2), (model(x) + model(z)) / 2
    # Sums of some ten products near 100 in double precision: 1e-9 is far above their rounding.
    return bool(torch.allclose(middle, ends, rtol=1e-9, atol=1e-9))


def _radii(case: Case) -> Tensor:
    """Return r(x) (n,) of the affine model with the case's weights and its margins at the samples."""
    model, data = case.model(), case.data()
    x = data.x[torch.arange(len(data))]
    with torch.no_grad():
        scores, weight = model(x), model.weight.detach()
    radii = []
    for k, y in enumerate(data.targets.tolist()):
        others = [j for j in range(case.classes) if j != y]
        norms = [float((weight[y] - weight[j]).abs().sum()) for j in others]
        radii.append(min(float(scores[k, y] - scores[k, j]) / norm for j, norm in zip(others, norms, strict=True)))
    return torch.tensor(radii, dtype=torch.float64)


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Predict the mean over the samples of margin over dual norm."""
    value = float(_radii(case).mean())
    return Prediction("equals", value, TOLERANCE * value, constants={"dimension": case.dimension})


class Held(nn.Module):
    """Lets only some entries of its input move away from `x`, one sample a time."""

    def __init__(self, model: nn.Module, x: Tensor, moves: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("x", x)
        self.register_buffer("moves", moves)

    def forward(self, z: Tensor) -> Tensor:
        """Return the model's scores at x + moves * (z - x)."""
        x, moves = self.get_buffer("x"), self.get_buffer("moves")
        return torch.as_tensor(self.model(x + moves * (z - x)))


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Measure each sample's critical radius by attack and bisection; return their mean within the brackets."""
    model, data = case.model(), case.data()
    x = data.x[torch.arange(len(data))]
    moves = torch.ones(case.dimension, dtype=torch.float64)
    moves[: round(case.frozen * case.dimension)] = 0.0
    low_sum = high_sum = 0.0
    gradients = 0
    for k in range(len(data)):
        sample = data.take(torch.tensor([k]))
        held = Held(model, x[k : k + 1], moves)
        low, high = 0.0, 0.05
        while True:  # doubled until the attack succeeds, so that no prediction is needed
            found = attack(held, sample, [high], steps=4, restarts=case.classes, generator=generator)
            gradients += found.gradients
            if found.right(high) == 0 or high > 1e3:
                break
            low, high = high, 2 * high
        for _ in range(7):
            middle = (low + high) / 2
            found = attack(held, sample, [middle], steps=4, restarts=case.classes, generator=generator)
            gradients += found.gradients
            low, high = (low, middle) if found.right(middle) == 0 else (middle, high)
        low_sum, high_sum = low_sum + low, high_sum + high
    low, high = low_sum / len(data), high_sum / len(data)
    return Measurement(
        "critical radius", (low + high) / 2, low, high, 1.0, method="attack and bisection", evaluations=gradients
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="representation",
    statement="A linear classifier's decision changes at a perturbation of margin / ||w_y - w_j||_1 in the maximum "
    "norm, and at no smaller one.",
    source="Goodfellow, Shlens and Szegedy 2015, section 3; Hoelder's inequality; lecture, slide on fragility",
    assumptions={"the model is affine": is_affine},
    predict=predict,
    measure=measure,
    holds_on=Case,
    fails_on=lambda: Case(curvature=1.0),
    corrupted=lambda: Case(frozen=0.5),
    convincing=lambda: Case(samples=100, dimension=784, classes=10),
)
