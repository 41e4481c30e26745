"""The Rademacher average of a network's own class, by training on random signs: how well can it follow pure noise?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import outputs
from whydeep.core.loss import Loss
from whydeep.core.measurement import Measurement
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Solver

DELTA = 0.05
"""Probability with which the true average may lie below the interval."""


def rademacher_average(
    data: Data,
    solver: Solver,
    *,
    fresh: Callable[[torch.Generator], nn.Module],
    draws: int = 5,
    loss: Loss | str = "cross_entropy",
    generator: torch.Generator | None = None,
) -> Measurement:
    """Return the mean over `draws` random sign vectors e of 1/n sum_i e_i h(x_i), h the network found for them.

    h(x) = +1 where the score of class 1 exceeds that of class 0, else -1; the labels of `data` are not looked at, only
    its samples. A solver finds some h and not the best, so the number is a lower bound of the Rademacher average
    E_e sup_h 1/n sum_i e_i h(x_i) of all the networks that `fresh` can become: about 1 if random labels are fitted, and
    then every bound 2 x this average says nothing. The sup with real-valued scores may be anything: signs are taken.
    The interval ends at 1, which is trivial, and begins at the mean less t = sqrt(2 ln(1/delta) / (n draws)), delta
    = .05: one sign changes the mean of the suprema by at most 2 / (n draws), so it exceeds its expectation by t with
    probability delta at most (McDiarmid 1989), and what was found does not exceed the suprema.

    Raises `InputError` with fewer than two classes, `ValueError` with draws < 1. Cost: `draws` trainings. Source:
    Zhang, Bengio, Hardt, Recht and Vinyals 2017, section 2.2 (number recalled, not checked against the paper).
    """
    if draws < 1:
        raise ValueError(f"draws={draws}; give at least 1")
    if data.classes is None or data.classes < 2:
        raise InputError(f"{data.name} has fewer than two classes", "give data for a network with two scores or more")
    generator = or_default(generator)
    found = []
    for _ in range(draws):
        model = fresh(spawn(generator))
        labels = torch.randint(2, (len(data),), generator=generator).to(data.targets.device)
        signed = replace(data, y=labels)
        trained = solver.train(Problem(model, signed, loss=loss), generator=spawn(generator)).model
        scores = outputs(trained, signed)
        follows = (scores[:, 1] > scores[:, 0]) == (labels == 1)
        found.append(2 * float(follows.double().mean()) - 1)
    value = sum(found) / draws
    return Measurement(
        "Rademacher average at least",
        value,
        value - math.sqrt(2 * math.log(1 / DELTA) / (len(data) * draws)),
        1.0,
        confidence=1 - DELTA,
        method=f"training on random signs: a lower bound of the supremum, McDiarmid, draws: {draws}",
        evaluations=draws,
    )
