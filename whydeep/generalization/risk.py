"""The fundamental decomposition of the lecture: risk on new data = training error + generalization gap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import outputs
from whydeep.core.measurement import Measurement, exact, proportion

Classifier = nn.Module | Callable[[Tensor], Any] | Any
"""A network; an object with `predict`, as in scikit-learn; or a function of x: it returns labels or scores."""


@dataclass(frozen=True)
class Decomposition:
    """R(w) = R_n(w) + gap for the 0-1 loss.

    training_error: R_n, a count without error. test_error: estimates R, with its interval.
    gap: test error - training error; may be negative.
    """

    training_error: Measurement
    test_error: Measurement
    gap: Measurement


def predicted(classifier: Classifier, data: Data) -> Tensor:
    """Return the predicted class of every sample, (n,) int64.

    A network is run in evaluation mode and left as it was. An object with `predict` is given numpy rows (n, d), every
    sample flattened; a function is given x as it is. Either returns labels (n,) or scores (n, classes), whose largest
    (the first one on a tie) is taken.

    Raises `InputError` when what comes back is not one label 0, 1, 2, ... or one row of scores a sample, when there are
    fewer scores than classes, or when something is not finite.

    >>> data = Data(torch.tensor([[-1.0], [2.0]]), torch.tensor([0, 1]), classes=2)
    >>> predicted(lambda x: (x[:, 0] > 0).long(), data)
    tensor([0, 1])
    """
    name = type(classifier).__name__
    if isinstance(classifier, nn.Module):
        answer = outputs(classifier, data)
    else:
        tensor = data.in_memory().x
        assert isinstance(tensor, Tensor)
        if hasattr(classifier, "predict"):
            labels = np.asarray(classifier.predict(tensor.detach().cpu().flatten(1).numpy()))
            if labels.dtype.kind not in "biuf":
                raise InputError(f"{name} returned labels of type {labels.dtype}", "fit it to the labels 0, 1, 2, ...")
            answer = torch.as_tensor(labels)
        elif callable(classifier):
            with torch.no_grad():
                answer = torch.as_tensor(classifier(tensor))
        else:
            raise TypeError(f"the classifier is {name}; give a network, an object with predict, or a function of x")
    if len(answer) != len(data) or answer.ndim not in (1, 2) or (answer.ndim == 2 and answer.shape[1] < 2):
        raise InputError(
            f"{name} returned shape {tuple(answer.shape)} for {len(data)} samples",
            f"let it return labels ({len(data)},) or scores ({len(data)}, classes)",
        )
    if not bool(torch.isfinite(answer).all()):
        raise InputError(f"{name} returned NaN or inf", "give a classifier with finite outputs")
    if answer.ndim == 1 and (bool((answer < 0).any()) or bool((answer != answer.round()).any())):
        raise InputError(
            f"{name} returned {float(answer[(answer < 0) | (answer != answer.round())][0]):g} as a label",
            "let it return the labels 0, 1, 2, ... or one score a class",
        )
    if answer.ndim == 2 and data.classes is not None and answer.shape[1] < data.classes:
        raise InputError(
            f"{name} returned {answer.shape[1]} scores a sample for {data.classes} classes",
            f"let it return {data.classes}, one a class",
        )
    return answer.long() if answer.ndim == 1 else answer.argmax(1)


def mistakes(classifier: Classifier, data: Data) -> Tensor:
    """Return which samples `classifier` gets wrong, (n,) bool: the 0-1 loss of each.

    Raises `InputError` when the data have no classes, and as `predicted` does.
    """
    if data.classes is None:
        raise InputError(f"{data.name} has no classes, so there are no mistakes to count", "give data with classes")
    return predicted(classifier, data).to(data.targets.device) != data.targets


def decompose(classifier: Classifier, train: Data, *, test: Data, confidence: float = 0.95) -> Decomposition:
    """Return training error R_n, test error and generalization gap, as fractions.

    The errors on the training data are no sample of the risk, because the classifier was chosen by them: R_n is a
    number known exactly. All uncertainty is that of the test error, an average of independent mistakes (Clopper and
    Pearson 1934), so the gap's interval is the test error's, shifted by R_n.

    >>> data = Data(torch.zeros(4, 1), torch.tensor([0, 0, 0, 1]), classes=2)
    >>> decompose(lambda x: torch.zeros(len(x)), data, test=data).training_error.value
    0.25
    """
    wrong, fresh = mistakes(classifier, train), mistakes(classifier, test)
    count = int(wrong.sum())
    training = exact("training error", count / len(train), unit="fraction", method=f"count, {count} of {len(train)}")
    testing = proportion("test error", int(fresh.sum()), len(test), confidence=confidence)
    shift = training.value
    gap = Measurement(
        "generalization gap",
        testing.value - shift,
        testing.low - shift,
        testing.high - shift,
        confidence=confidence,
        unit="fraction difference",
        method="interval of the test error minus the training error",
    )
    return Decomposition(training, testing, gap)


def margins(model: nn.Module, data: Data) -> Tensor:
    """Return each sample's margin, (n,) float64: score of its class minus the largest score of another.

    A positive margin is a right decision; its size says by how much. Needs at least two classes.
    """
    if data.classes is None:
        raise InputError(f"{data.name} has no classes, so there are no margins", "give data with classes")
    scores = outputs(model, data).double()
    right = scores.gather(1, data.targets[:, None])[:, 0]
    others = scores.scatter(1, data.targets[:, None], -torch.inf)
    return right - others.max(1).values
