"""The job of `whydeep certify`: a network, trained here or given, and its certificates from held-out samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.instrument import Independence
from whydeep.core.loss import Loss, PerSample
from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed, or_default, spawn
from whydeep.core.record import plain
from whydeep.core.training import Progress, Solver
from whydeep.generalization.certificates.certificate import Certificate
from whydeep.generalization.certificates.certifying import METHODS, TRAINED, certify
from whydeep.optimization.named import by_name

ALWAYS = ("binomial", "kl", "hoeffding")
"""Methods that cost nothing beside the first: they stand in every table."""
Tell = Callable[[str, Progress], bool]


@dataclass(frozen=True)
class Certification:
    """The certificates of one network, the one asked for first.

    independence: why the held-out samples are new to it, as in `Subject`.
    trained: whether the network that the plain methods count on was trained here.
    """

    certificates: tuple[Certificate, ...]
    independence: Independence
    config: Mapping[str, Any]
    trained: bool = False

    @property
    def sentence(self) -> str:
        """The first certificate in words, with its condition where independence is on trust."""
        text = self.certificates[0].sentence
        if self.independence != "on trust":
            return text
        return f"If the held-out samples were not used in training: {text[0].lower()}{text[1:]}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it; the networks themselves are left out."""
        return {
            "sentence": self.sentence,
            "independence": self.independence,
            "certificates": [_json(certificate) for certificate in self.certificates],
            "config": plain(self.config),
        }


def certification(
    model: nn.Module | Callable[[], nn.Module],
    train: Data,
    heldout: Data,
    *,
    methods: Sequence[str] = ("binomial",),
    delta: float = 0.05,
    candidates: int = 1,
    loss: Loss | str | PerSample = "cross_entropy",
    solver: Solver | None = None,
    declared: bool = False,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    config: Mapping[str, Any] | None = None,
    tell: Tell | None = None,
) -> Certification:
    """Train where needed, then certify by each of `methods`, and by those of `ALWAYS` beside them.

    model: a network is certified as it is, unless a solver is given; a function that makes one is trained on `train`
    by `solver` (Adam when None) first. A given network is copied; what it was trained on before is not known, so that
    the held-out samples are new to it, and to what is trained from it, on trust, or where that is `declared`.
    Each certificate holds with probability 1 - delta by itself.

    Raises `InputError` on an unknown or repeated method, when a training diverges, and as `certify` does.
    """
    twice = [name for k, name in enumerate(methods) if name in methods[:k]]
    unknown = [name for name in methods if name not in METHODS]
    if not methods or unknown or twice:
        what = f"unknown method {unknown[0]!r}" if unknown else f"method {twice[0]!r} twice" if twice else "no method"
        raise InputError(what, f"give each of {', '.join(METHODS)} once at most")
    if train.classes is None:
        raise InputError(f"{train.name} has no classes, so there are no mistakes to count", "give data with classes")
    generator = or_default(generator)
    train, heldout = train.to(device), replace(heldout, classes=_classes(train, heldout)).to(device)
    maker = solver or by_name("adam", samples=len(train))
    given = isinstance(model, nn.Module)
    with global_seed(generator):
        start = (copy.deepcopy(model) if isinstance(model, nn.Module) else model()).to(device)
    network = start
    if solver is not None or not given:
        network = _trained(Problem(start, train, loss=loss), maker, spawn(generator), tell)
    independence: Independence = "by construction" if not given else "declared" if declared else "on trust"
    found = []
    # The same numbers for every method: those that train find the same networks, and their rows can be compared.
    state = spawn(generator).get_state()
    for name in dict.fromkeys((*methods, *ALWAYS)):
        trains, stream = name in TRAINED, torch.Generator()
        stream.set_state(state)
        if tell is not None:
            tell(f"certifying: {name}", Progress(0, 1))
        found.append(
            certify(
                start if trains else network.eval(),
                heldout,
                delta=delta,
                method=name,
                candidates=candidates,
                train=train,
                solver=maker if trains else None,
                generator=stream,
            )
        )
    return Certification(tuple(found), independence, dict(config or {}), trained=network is not start)


def _trained(problem: Problem, solver: Solver, generator: torch.Generator, tell: Tell | None) -> nn.Module:
    def progress(step: Progress) -> bool | None:
        return None if tell is None else tell("training", step)

    training = solver.train(problem, generator=generator, callback=progress)
    if training.outcome.diverged:
        raise InputError(f"the training diverged: {training.outcome.reason}", "give a smaller step size")
    return training.model


def _classes(train: Data, heldout: Data) -> int:
    """Return the number of classes of both; held-out samples may lack the last ones."""
    if heldout.classes is None or train.classes is None or heldout.classes > train.classes:
        raise InputError(
            f"{heldout.name} has {heldout.classes or 'no'} classes, and {train.name} {train.classes}",
            "give held-out data with the classes of the training data",
        )
    return train.classes


def _json(certificate: Certificate) -> dict[str, Any]:
    own = {
        f.name: getattr(certificate, f.name) for f in fields(certificate) if f.name not in ("classifier", "baseline")
    }
    derived = {name: getattr(certificate, name) for name in ("vacuous", "dominant", "slack", "sentence")}
    baseline = None if certificate.baseline is None else _json(certificate.baseline)
    return dict(plain(own | derived)) | {"baseline": baseline}
