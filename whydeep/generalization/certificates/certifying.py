"""One call for every certificate: `certify`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from whydeep.core.data import Data
from whydeep.core.errors import DataError, InputError
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Solver
from whydeep.data.accept import as_data
from whydeep.generalization.risk import Classifier

from .certificate import Certificate
from .disintegrated import disintegrated_certificate
from .gibbs import gibbs_certificate
from .heldout import BOUNDS, check_candidates, heldout_certificate
from .inversion import check_delta
from .learnt_prior import learnt_prior
from .occam import occam_certificate
from .pac_bayes import confidence_nats, pac_bayes_certificate
from .posterior_training import train_posterior
from .preconditions import check_disjoint, check_fixed, with_repeats


@dataclass(frozen=True)
class _Task:
    """What a method that trains works on."""

    model: nn.Module
    heldout: Data
    train: Data
    solver: Solver | None
    delta: float
    candidates: int
    generator: torch.Generator


def _gaussian(task: _Task, certificate: Callable[..., Certificate]) -> Certificate:
    """Train the prior on `train`, the posterior on `heldout`, and certify it there."""
    assert task.solver is not None
    prior = learnt_prior(task.model, task.train, task.solver, generator=spawn(task.generator))
    # All of delta is divided, not the inequality's part alone: of J candidates each has draws that may mislead.
    share = task.delta / task.candidates
    nats = confidence_nats(len(task.heldout), share)
    posterior = train_posterior(prior, task.heldout, nats=nats, generator=spawn(task.generator))
    found = certificate(posterior, prior, task.heldout, delta=share, generator=spawn(task.generator))
    centre = prior.network(prior.mean)
    plain = heldout_certificate(centre, task.heldout, delta=task.delta, candidates=task.candidates)
    baseline = with_repeats(replace(plain, subject="the network it is around"), task.heldout)
    return with_repeats(replace(_paid(found, task), baseline=baseline), task.heldout)


def _occam(task: _Task) -> Certificate:
    """Train in a short code on `train`, and certify there; the held-out samples give the baseline."""
    assert task.solver is not None
    found = occam_certificate(
        task.model,
        task.train,
        task.solver,
        delta=task.delta / task.candidates,
        heldout=task.heldout,
        generator=spawn(task.generator),
    )
    return with_repeats(_paid(found, task), task.train)


def _gibbs(task: _Task) -> Certificate:
    """Sample the Gibbs distribution of `train`; one of its networks gives the baseline on the held-out samples."""
    found = gibbs_certificate(
        task.model, task.train, delta=task.delta / task.candidates, generator=spawn(task.generator)
    )
    plain = heldout_certificate(found.classifier[0], task.heldout, delta=task.delta, candidates=task.candidates)
    baseline = with_repeats(replace(plain, subject="one network drawn"), task.heldout)
    return replace(_paid(found, task), baseline=baseline)


def _paid(found: Certificate, task: _Task) -> Certificate:
    """Return the certificate at delta / candidates as one at delta of the one that was picked."""
    if task.candidates == 1:
        return found
    union = f"delta / {task.candidates}, for {task.candidates} networks compared on the same samples"
    return replace(found, delta=task.delta, candidates=task.candidates, union=(union, *found.union))


TRAINED: dict[str, Callable[[_Task], Certificate]] = {
    "disintegrated": lambda task: _gaussian(task, disintegrated_certificate),
    "gibbs": _gibbs,
    "occam": _occam,
    "pac-bayes-kl": lambda task: _gaussian(task, pac_bayes_certificate),
}
"""The methods that find networks of their own."""
CHAINS = ("gibbs",)
"""Those of them that need no solver."""
METHODS = (*BOUNDS, *TRAINED)


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
    delta: the probability with which the certificate may be wrong.
    method: of the given classifier, from its mistakes on `heldout`,
        "binomial" (exact, never beaten by the next two), "kl", "hoeffding";
    of a network that `solver` trains on `train` from a copy of `model`, which is returned as `classifier`,
        "pac-bayes-kl": of the mean error of networks drawn from a Gaussian posterior, which is trained on `heldout`,
        "disintegrated": of one network drawn from it,
        "gibbs": of networks drawn from the Gibbs distribution of the loss on `train`, counted there (it needs no
        `solver`, and holds as far as the chains have reached that distribution),
        "occam": of one that is written in so few bits that it is certified on `train` itself, where it was trained.
    train: where given, no held-out sample may be among its samples; else their independence is on trust.
    candidates: the number of classifiers among which this one was picked by its errors on `heldout`; the union bound
    gives each delta / candidates.
    generator: for trainings and draws; None is seeded with 0.
    The plain binomial certificate of the same network stands beside every other one, as `baseline`.
    Samples that repeat others are counted in a note; more than a hundredth of them become the sentence's condition.

    Raises `ValueError` on a delta outside (0, 1), an unknown method or candidates below 1, `InputError` when the data
    have no classes, when held-out samples are among those of `train`, when the network is in training mode and differs
    there, when the classifier's output does not fit, or when a method that trains lacks `train` or `solver`.
    Cost: one pass over `heldout`; the methods that train say theirs.

    >>> import torch
    >>> x = torch.arange(20.0)
    >>> certify(lambda x: x[:, 0] % 2, (x[:, None], (x % 2).long())).sentence
    'Its error on new samples is at most 14 % (95 % sure); it measures 0 % (0 of 20).'
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; give one of {', '.join(METHODS)}")
    check_candidates(candidates)
    check_delta(delta)
    known = None if train is None else _data(train, "training data", None)
    data = _data(heldout, "held-out data", known)
    if data.classes is None:
        raise InputError(f"{data.name} has no classes, so there are no mistakes to count", "give data with classes")
    if known is not None:
        check_disjoint(known, data)
    if method in TRAINED:
        needed = {"train": known} if method in CHAINS else {"train": known, "solver": solver}
        lacking = " and ".join(name for name, given in needed.items() if given is None)
        if known is None or lacking:
            raise InputError(
                f"method {method} trains a network, and there is no {lacking}",
                f"give {'= and '.join(needed)}=, or take method binomial",
            )
        if not isinstance(model, nn.Module):
            raise InputError(
                f"method {method} needs the weights of a network, and the classifier is {type(model).__name__}",
                "give a torch.nn.Module, or take method binomial",
            )
        if known.input_shape != data.input_shape or known.classes != data.classes:
            raise InputError(
                f"{known.name}: samples of shape {known.input_shape}, {known.classes or 'no'} classes; {data.name}: "
                f"{data.input_shape}, {data.classes}",
                "give held-out data of the same shape and classes as the training data",
            )
        # What is trained from it answers as it does: sample by sample, or not. The mode is set anywhere below.
        check_fixed(copy.deepcopy(model).eval(), data)
        return TRAINED[method](_Task(model, data, known, solver, delta, candidates, or_default(generator)))
    check_fixed(model, data)
    plain = with_repeats(heldout_certificate(model, data, delta=delta, candidates=candidates), data)
    if method == "binomial":
        return plain
    found = heldout_certificate(model, data, delta=delta, method=method, candidates=candidates)
    return replace(found, condition=plain.condition, notes=plain.notes, baseline=plain)


def _data(source: Any, name: str, like: Data | None) -> Data:
    """Return `source` as `Data`; one of no known form is refused in a sentence."""
    try:
        return as_data(source, name=name, like=like)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as fault:
        what = f"data of type {type(source).__name__} cannot be read ({str(fault).strip().splitlines()[0]})"
        raise DataError(name, what, "give Data, a pair (x, y) of arrays or a DataLoader") from fault
