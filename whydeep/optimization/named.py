"""Solvers by name, as the command line gives them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.core.training import Solver

from .alternating.admm.admm import ADMM
from .alternating.bcd.bcd import BCD
from .alternating.bcd.stochastic import StochasticBCD
from .alternating.chain import Chain
from .alternating.dladmm import DLADMM
from .alternating.stochastic_admm.stochastic_admm import StochasticADMM
from .alternating.taylor import TaylorADMM
from .backprop import Backprop
from .entropy_sgd import EntropySGD
from .langevin.sgld import SGLD
from .msa import EMSA, MSA
from .parle import Parle
from .saddle_free_newton import SaddleFreeNewton


def _passes(samples: int, batch: int, steps: int, most: int = 60) -> int:
    """Return how many passes make about so many steps, between 5 and `most`."""
    return min(most, max(5, round(steps / math.ceil(samples / batch))))


def _minibatch(samples: int) -> int:
    # Some ten minibatches a pass where there are few samples: measured on sets of 150 to 600, five times fewer lose
    # several points of accuracy, and five times more gain none.
    return min(500, max(20, samples // 10))


def _stochastic(solver: type[StochasticADMM] | type[StochasticBCD]) -> Callable[[int], Solver]:
    return lambda samples: solver(epochs=_passes(samples, _minibatch(samples), 600), batch_size=_minibatch(samples))


def _backprop(
    optimizer: type[torch.optim.Optimizer], lr: float, schedule: str, **options: float
) -> Callable[[int], Solver]:
    return lambda samples: Backprop(
        optimizer, lr=lr, epochs=_passes(samples, 64, 3000), schedule=schedule, options=options
    )


FAMILY: dict[str, Callable[[int], Solver]] = {
    "adam": _backprop(torch.optim.Adam, 1e-3, "cosine"),
    "admm": lambda samples: ADMM(),
    "bcd": lambda samples: BCD(),
    "dladmm": lambda samples: DLADMM(),
    "emsa": lambda samples: EMSA(),
    # Five gradients a step, so a fifth of the steps. Of 0.1 and 0.3 for the inner chain, 0.3 was the better one on a
    # part of the digits' training data that was held back.
    "entropy_sgd": lambda samples: Backprop(
        EntropySGD, lr=1.0, epochs=_passes(samples, 64, 600), options={"inner": 5, "inner_lr": 0.3}
    ),
    "msa": lambda samples: MSA(),
    "parle": lambda samples: Parle(epochs=_passes(samples, 64, 1000), inner_lr=0.3),
    "saddle_free_newton": lambda samples: SaddleFreeNewton(),
    "sgd": _backprop(torch.optim.SGD, 0.05, "cosine", momentum=0.9),
    # Temperature 1e-4 per mean loss: the noise of a step of 0.05 is then sd 0.003 an entry.
    "sgld": _backprop(SGLD, 0.05, "constant", beta=1e4),
    "stochastic_admm": _stochastic(StochasticADMM),
    "stochastic_bcd": _stochastic(StochasticBCD),
    "taylor": lambda samples: TaylorADMM(),
}
"""Name -> number of training samples -> the solver with its defaults for so many."""


def automatic(problem: Problem) -> Solver:
    """Return StochasticADMM where the network is a chain that it can train, else Adam.

    Full-batch ADMM is the lecture's algorithm and the better one for smooth functions to many digits, at a ridge near
    zero; on noisy data of every size tried the minibatch form was ahead of it in accuracy and in time.
    """
    try:
        Chain.of(problem.model)
    except InputError:
        return by_name("adam", samples=len(problem.train))
    return by_name("stochastic_admm", samples=len(problem.train))


def by_name(spec: str, *, samples: int) -> Solver:
    """Return the solver of "NAME?key=value&...": a name of `FAMILY` with any of its hyper-parameters.

    samples: size of the training data; unless `epochs` or `steps` is given, back-propagation takes about 3,000 steps,
    StochasticADMM and StochasticBCD about 600, all between 5 and 60 passes.

    Raises `InputError` on an unknown name (the valid ones are listed), an unknown key or a value that does not fit.

    >>> by_name("adam?lr=0.01&epochs=3", samples=1000).epochs
    3
    """
    name, _, text = spec.partition("?")
    if name not in FAMILY:
        raise InputError(f"unknown solver {name!r}", f"give one of {', '.join(FAMILY)}")
    solver: Any = FAMILY[name](samples)
    for pair in filter(None, text.split("&")):
        key, _, value = pair.partition("=")
        solver = _with(solver, name, key, value)
    return solver  # type: ignore[no-any-return]


_NO_TEXT = ("optimizer", "options", "group", "checkpoint")
"""Fields that hold objects, which the command line gives in other ways."""


def _with(solver: Any, name: str, key: str, text: str) -> Any:
    value = _value(text)
    fields = [field for field in solver.__dataclass_fields__ if field not in _NO_TEXT]
    extra = isinstance(solver, Backprop) and key in _options(solver)
    if key not in fields and not extra:
        known = fields + (_options(solver) if isinstance(solver, Backprop) else [])
        raise InputError(f"solver {name} has no {key!r}", f"give one of {', '.join(known)}")
    try:
        changes: dict[str, Any] = {key: value}
        if extra:
            # Of beta and temperature, an optimizer takes the one that was given last.
            other = {"beta": "temperature", "temperature": "beta"}.get(key)
            changes = {"options": {name: kept for name, kept in solver.options.items() if name != other} | {key: value}}
        elif key == "steps" and "epochs" in fields:
            changes = {"steps": value, "epochs": None}
        changed = replace(solver, **changes)
        if isinstance(changed, Backprop):
            # The optimizer knows what it refuses; it would say so only after the data have been read.
            changed.optimizer([torch.nn.Parameter(torch.zeros(1))], lr=changed.lr, **changed.options)
        return changed
    except (TypeError, ValueError) as fault:
        raise InputError(f"solver {name}: {fault}", f"change {key}={text}") from fault


def _options(solver: Backprop) -> list[str]:
    names = list(inspect.signature(solver.optimizer).parameters)
    return [name for name in names if name not in ("self", "params", "lr", "generator")]


def _value(text: str) -> Any:
    if text.lower() in ("yes", "true", "no", "false", "none"):
        return {"yes": True, "true": True, "no": False, "false": False, "none": None}[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
