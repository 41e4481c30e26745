"""The lecture's conditions under which ADMM provably converges, held against the parameters that one uses.

For two hidden layers of r_1 and r_2 sigmoid units, the squared loss and no biases, slide "Convergence of ADMM":

    B = max{ 2 sqrt(r_1) / q,  sqrt(2 sqrt(r_2) / q),  (||Y||_F / ||X||_F)^(1/3) },      q = ||X||_F / sqrt(n),
    beta_3 >= 2,   beta_2 >= 16 (beta_3 + 1) B^2,   beta_1 >= 11 (beta_2 + 1) B^4 ||X||_F,
    lambda >= max{ 3/4 beta_1 B ||X||_F^3,  10 beta_2 B^4 ||X||_F^3,  4 beta_3 B^4 ||X||_F^2 }.

The slides divide the risk by n when they pose the problem and drop the division when they split it: their KKT condition
0 = -Lambda_N + V_N - Y belongs to the sum over samples, and so do beta and lambda here. The objective has one lambda,
the KKT conditions and the algorithm have one a layer; a condition on lambda must hold for the least of them.

What compliance costs can be proved. At a KKT point ridge_N W_N = -Lambda_N' V_{N-1} and Lambda_N = f - Y, so that
ridge_N ||W_N||^2 = <Y - f, f>; with |V| <= 1 entry by entry, ||f|| <= ||W_N|| sqrt(n r_{N-1}), hence

    ||f||_F <= ||Y||_F / (1 + ridge_N / (n r_{N-1})).

As B^4 ||X||_F^2 >= 4 n r_2, the third condition on lambda asks for at least 32 n r_2: every KKT point that the theorem
can reach has outputs of at most 1/33 of the targets. The theorem is vacuous for learning, whatever the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from whydeep.core.problem import Problem
from whydeep.optimization.alternating.chain import Chain, Layer
from whydeep.optimization.alternating.proximal import target_rows

SMALLEST_BETA = 2.0


@dataclass(frozen=True)
class Condition:
    """`name` >= threshold, as the theorem asks; value is what is used, formula the threshold in the slide's letters."""

    name: str
    formula: str
    threshold: float
    value: float

    @property
    def ratio(self) -> float:
        """Value over threshold; 1 and more satisfies the condition."""
        return self.value / self.threshold

    @property
    def holds(self) -> bool:
        """Whether the parameter is large enough."""
        return self.value >= self.threshold


@dataclass(frozen=True)
class Conditions:
    """The theorem's conditions for a network, its data and its parameters.

    outside: what of the network or the loss the slide's theorem does not speak of, in words; empty where it applies.
    size: B, and conditions: those on beta_3, beta_2, beta_1 and lambda; None and empty where the network has not two
    hidden layers, as the slides give their constants for that depth only.
    beta, ridge: of every layer. cap: the largest ||f||_F / ||Y||_F at any KKT point with this ridge, from the formula
    above; None where it has no proof (another loss than the squared one, or states beyond [-1, 1]).
    """

    outside: tuple[str, ...]
    size: float | None
    conditions: tuple[Condition, ...]
    beta: tuple[float, ...]
    ridge: tuple[float, ...]
    cap: float | None
    norms: tuple[float, float]
    """Frobenius norms of X and Y."""

    @property
    def hold(self) -> bool:
        """Whether the theorem guarantees convergence: it speaks of this network, and every condition is met."""
        return not self.outside and bool(self.conditions) and all(condition.holds for condition in self.conditions)

    @property
    def reason(self) -> str:
        """Why there is no guarantee, or "" where there is one."""
        short = [f"{c.name} is {c.ratio:.1g} of what is asked" for c in self.conditions if not c.holds]
        return "; ".join([*self.outside, *short])

    def compliant(self) -> tuple[tuple[float, float, float], float]:
        """Return the smallest (beta_1, beta_2, beta_3) and ridge that satisfy every condition.

        Every threshold grows with the parameters above it, so the smallest are the thresholds themselves, from
        beta_3 = 2 on. Raises `ValueError` where the network has not two hidden layers.
        """
        if self.size is None:
            raise ValueError(
                f"the network has {len(self.beta)} layers, and the lecture's constants are for three; "
                "give a network with two hidden layers"
            )
        x = self.norms[0]
        beta_3 = SMALLEST_BETA
        beta_2 = _beta_2(self.size, beta_3)
        beta_1 = _beta_1(self.size, beta_2, x)
        return (beta_1, beta_2, beta_3), max(_ridges(self.size, (beta_1, beta_2, beta_3), x))


def theorem_conditions(
    problem: Problem, beta: float | Sequence[float] = 1.0, ridge: float | Sequence[float] = 1e-2
) -> Conditions:
    """Return the lecture's conditions for `problem` trained by ADMM with `beta` and `ridge`, one number or one a layer.

    The training data enter by ||X||_F, ||Y||_F (classes as one-hot rows) and n. Units: sums over samples. With a bias
    the slide's setting is left (`outside` says so), and X and r_1, r_2 are taken without the columns of ones.

    Raises `InputError` when the model is no chain of layers, `ValueError` when X is zero, when a parameter is negative
    or not finite, or when there is not one a layer.
    Source: slide "Convergence of ADMM (3-layers for example)"; Zeng, Lin, Yao and Zhou (JMLR 2021) have the general
    depth, whose constants are not on the slides.

    >>> from torch import nn, ones
    >>> from whydeep.core.data import Data
    >>> layers = (nn.Linear(1, 1, bias=False), nn.Sigmoid(), nn.Linear(1, 1, bias=False), nn.Sigmoid())
    >>> network = nn.Sequential(*layers, nn.Linear(1, 1, bias=False))
    >>> found = theorem_conditions(Problem(network, Data(ones(1, 1), ones(1, 1)), loss="squared"))
    >>> found.size, found.compliant()  # B = 2: 16 * 3 * 4, 11 * 193 * 16, 3/4 * 33968 * 2
    (2.0, ((33968.0, 192.0, 2.0), 50952.0))
    """
    chain = Chain.of(problem.model)
    layers = chain.layers
    betas, ridges = per_layer(beta, len(layers), "beta"), per_layer(ridge, len(layers), "ridge")
    rows = chain.rows(problem.train)
    x = float(rows.norm())
    y = float(target_rows(problem.train.targets, layers[-1].linear.out_features).norm())
    if x == 0:
        raise ValueError("all inputs are zero, and the thresholds divide by their norm; give other data")
    squared = problem.per_sample.name == "squared"
    outside = _outside(layers) + (() if squared else (f"the loss is {problem.per_sample.name}, not squared",))
    cap = None
    if squared and len(layers) > 1 and layers[-2].activation.name in ("sigmoid", "tanh"):
        width = layers[-1].linear.in_features + layers[-1].bias  # a column of ones is bounded by one, too
        cap = 1 / (1 + ridges[-1] / (len(rows) * width))
    size, conditions = None, tuple[Condition, ...]()
    if len(layers) == 3:
        size = _size(layers, x, y, len(rows))
        conditions = _conditions(size, x, betas, min(ridges))
    return Conditions(outside, size, conditions, betas, ridges, cap, (x, y))


def per_layer(value: float | Sequence[float], layers: int, name: str) -> tuple[float, ...]:
    """Return one number a layer; raises `ValueError` on a wrong count, or on what is no finite number >= 0."""
    values = tuple(value) if isinstance(value, Sequence) else (float(value),) * layers
    if len(values) != layers:
        raise ValueError(f"{name} has {len(values)} numbers for {layers} layers; give one number, or one a layer")
    if not all(0 <= one < math.inf for one in values):
        raise ValueError(f"{name} is {value}; give finite numbers >= 0")
    return values


def _outside(layers: tuple[Layer, ...]) -> tuple[str, ...]:
    found = []
    if len(layers) != 3:
        found.append(f"the constants are known for three layers, and these are {len(layers)}")
    others = sorted({layer.activation.name for layer in layers[:-1]} - {"sigmoid"})
    if others:
        found.append(f"the theorem is for sigmoid, and here is {' and '.join(others)}")
    if any(layer.bias for layer in layers):
        found.append("the theorem leaves out biases, and here are some")
    return tuple(found)


def _size(layers: tuple[Layer, ...], x: float, y: float, n: int) -> float:
    quotient = x / math.sqrt(n)
    first, second = (math.sqrt(layer.linear.out_features) for layer in layers[:2])
    return max(2 * first / quotient, math.sqrt(2 * second / quotient), math.cbrt(y / x))


def _beta_2(size: float, beta_3: float) -> float:
    return 16 * (beta_3 + 1) * size * size


def _beta_1(size: float, beta_2: float, x: float) -> float:
    return 11 * (beta_2 + 1) * size**4 * x


def _ridges(size: float, betas: Sequence[float], x: float) -> tuple[float, float, float]:
    return 0.75 * betas[0] * size * x**3, 10 * betas[1] * size**4 * x**3, 4 * betas[2] * size**4 * x**2


def _conditions(size: float, x: float, betas: tuple[float, ...], ridge: float) -> tuple[Condition, ...]:
    by_1, by_2, by_3 = _ridges(size, betas, x)
    return (
        Condition("beta_3", "2", SMALLEST_BETA, betas[2]),
        Condition("beta_2", "16 (beta_3 + 1) B^2", _beta_2(size, betas[2]), betas[1]),
        Condition("beta_1", "11 (beta_2 + 1) B^4 ||X||", _beta_1(size, betas[1], x), betas[0]),
        Condition("lambda, by beta_1", "3/4 beta_1 B ||X||^3", by_1, ridge),
        Condition("lambda, by beta_2", "10 beta_2 B^4 ||X||^3", by_2, ridge),
        Condition("lambda, by beta_3", "4 beta_3 B^4 ||X||^2", by_3, ridge),
    )
