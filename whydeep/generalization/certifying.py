"""One call for every certificate: `certify`."""

from __future__ import annotations

from typing import Any

import torch

from whydeep.core.errors import InputError
from whydeep.core.training import Solver
from whydeep.data.accept import as_data

from .certificate import Certificate
from .heldout import BOUNDS, heldout_certificate
from .inversion import check_delta
from .preconditions import check_disjoint, check_fixed
from .risk import Classifier


def certify(
    model: Classifier,
    heldout: Any,
    *,
    delta: float = 0.05,
    method: str = "binomial",
    candidates: int = 1,
    train: Any = None,
    solver: Solver | None = None,
    generator: torch.Generator | None = None,
) -> Certificate:
    """Return a certificate on the risk of `model` from data that it has not seen.

    model: a network, a fitted scikit-learn classifier, or a function of x that returns labels or scores.
    heldout, train: `Data`, a pair (x, y) of tensors or arrays, or a DataLoader.
    delta: the probability with which the certificate may be wrong. method: "binomial" (exact, never beaten by
    the next two), "kl" or "hoeffding".
    candidates: the number of classifiers among which this one was picked by its errors on `heldout`; the union bound
    gives each delta / candidates.

    Raises `ValueError` on a delta outside (0, 1), an unknown method or candidates below 1, `InputError` when the data
    have no classes, when held-out samples are among those of `train`, when the network is in training mode and differs
    there, or when the classifier's output does not fit. Cost: one pass over `heldout`.

    >>> import torch
    >>> y = torch.arange(20) % 2
    >>> certify(lambda x: x[:, 0], (y[:, None].float(), y)).sentence
    'Its error on new samples is at most 14 % (95 % sure); it measures 0 % (0 of 20).'
    """
    if method not in BOUNDS:
        raise ValueError(f"unknown method {method!r}; give one of {', '.join(sorted(BOUNDS))}")
    check_delta(delta)
    known = None if train is None else as_data(train, name="training data")
    data = as_data(heldout, name="held-out data", like=known)
    if known is not None:
        check_disjoint(known, data)
    if data.classes is None:
        raise InputError(f"{data.name} has no classes, so there are no mistakes to count", "give data with classes")
    check_fixed(model, data)
    return heldout_certificate(model, data, delta=delta, method=method, candidates=candidates)
