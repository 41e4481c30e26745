"""Linear probes: how well a linear rule reads the class from a representation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from whydeep.core.measurement import Measurement, proportion
from whydeep.core.randomness import or_default

PENALTIES = (1e-4, 1e-3, 1e-2)
"""Default grid of the L2 penalty, per sample."""


@dataclass(frozen=True)
class Probe:
    """A linear probe after its test: which test samples it reads right, (n,) bool, and the penalty it chose."""

    right: Tensor
    penalty: float

    def accuracy(self, name: str) -> Measurement:
        """Return the fraction read right, with the interval of Clopper and Pearson."""
        return proportion(name, int(self.right.sum()), len(self.right))


def probe(
    train_features: Tensor,
    train_labels: Tensor,
    *,
    test_features: Tensor,
    test_labels: Tensor,
    penalties: Sequence[float] = PENALTIES,
    generator: torch.Generator | None = None,
) -> Probe:
    """Fit a linear probe on the training features and test it.

    The probe is multinomial logistic regression: over weights W (d, classes) and free intercepts b it minimises

        1/n sum_i -log softmax(x_i W + b)[y_i]  +  penalty/2 ||W||_F^2,

    with each feature shifted and scaled to mean 0 and variance 1 (divisor n) on the training samples; a feature that
    is constant there is only shifted. The penalty is the one of `penalties` with the least log-loss on a fifth of the
    training samples, held back for that and used again in the last fit.
    Test samples take no part in any choice, so the test accuracy has a binomial interval.

    train_features (n, d), train_labels (n,) int64, test_features (m, d), test_labels (m,).
    Cost: len(penalties) + 1 fits by L-BFGS, at most 150 iterations of 4 n d classes operations each.
    Own L-BFGS because it takes a tenth of the time of scikit-learn's LogisticRegression at the same optimum (the tests
    compare them).
    Source: linear probes as of Alain and Bengio 2016.
    Raises `ValueError` when counts or widths differ.

    >>> x = torch.tensor([[0.0], [1.0]]).repeat(10, 1)
    >>> y = x[:, 0].long()
    >>> probe(x, y, test_features=x, test_labels=1 - y).accuracy("upside down").value
    0.0
    """
    if len(train_features) != len(train_labels) or len(test_features) != len(test_labels):
        raise ValueError(
            f"{len(train_features)} and {len(test_features)} rows of features for {len(train_labels)} and "
            f"{len(test_labels)} labels; give one label a row"
        )
    if train_features.ndim != 2 or train_features.shape[1:] != test_features.shape[1:]:
        raise ValueError(
            f"features have shapes {tuple(train_features.shape)} and {tuple(test_features.shape)}; "
            "give (n, d) and (m, d)"
        )
    train_x, test_x = standardised(train_features, test_features)
    train_y, test_y = train_labels.cpu(), test_labels.cpu()
    classes = 1 + max(int(train_y.max()), int(test_y.max()))
    penalty = penalties[0]
    if len(penalties) > 1 and len(train_y) > 1:
        order = torch.randperm(len(train_y), generator=or_default(generator))
        held, kept = order.tensor_split([max(1, len(order) // 5)])
        losses = []
        for value in penalties:
            weights = _fit(train_x[kept], train_y[kept], classes, value)
            losses.append(float(F.cross_entropy(_scores(train_x[held], weights), train_y[held])))
        penalty = penalties[losses.index(min(losses))]
    predicted = _scores(test_x, _fit(train_x, train_y, classes, penalty)).argmax(1)
    return Probe(predicted == test_y, penalty)


def standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Return both shifted and scaled to mean 0 and variance 1 over the rows of `train`.

    A column whose spread is at most 1e-6 of its mean, some units in the last place of single precision, counts as
    constant.
    """
    train, test = train.cpu(), test.to("cpu", train.dtype)
    centre, spread = train.mean(0), train.std(0, correction=0)
    spread = torch.where(spread > 1e-6 * centre.abs(), spread, torch.ones_like(spread))
    return (train - centre) / spread, (test - centre) / spread


def gain(name: str, better: Tensor, worse: Tensor, *, confidence: float = 0.95) -> Measurement:
    """Return the difference in accuracy of two rules on the same samples, each (n,) bool: right or not.

    With b samples that only the first reads right and c that only the second does, the difference is (b - c)/n, in
    [b_low - c_high, b_high - c_low] over the Clopper-Pearson intervals of b/n and c/n, each wrong with half of
    1 - confidence: conservative at any n.

    >>> gain("gain", torch.tensor([True, True]), torch.tensor([False, True])).value
    0.5
    """
    n, first, second = len(better), int((better & ~worse).sum()), int((worse & ~better).sum())
    each = (1 + confidence) / 2
    b, c = proportion("first", first, n, confidence=each), proportion("second", second, n, confidence=each)
    method = f"paired Clopper-Pearson, {first} against {second} of {n}"
    value = (first - second) / n
    return Measurement(
        name, value, b.low - c.high, b.high - c.low, confidence, unit="fraction difference", method=method
    )


def _fit(x: Tensor, y: Tensor, classes: int, penalty: float) -> Tensor:
    """Return weights and, as the last row, intercepts: (d + 1, classes)."""
    weights = x.new_zeros(x.shape[1] + 1, classes).requires_grad_()
    # Ends when no entry of the gradient exceeds 1e-4: a mean log-loss then lies far closer to its least value than
    # the test samples resolve. tolerance_change 0: a slow step is no reason to stop.
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=150, tolerance_grad=1e-4, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(_scores(x, weights), y) + penalty / 2 * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()


def _scores(x: Tensor, weights: Tensor) -> Tensor:
    return torch.addmm(weights[-1], x, weights[:-1])
