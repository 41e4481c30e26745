"""Whole numbers among the hyper-parameters of every solver."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from whydeep.core.errors import InputError
from whydeep.optimization import (
    ADMM,
    BCD,
    DLADMM,
    EMSA,
    MSA,
    Backprop,
    EntropySGD,
    Parle,
    SaddleFreeNewton,
    StochasticADMM,
    StochasticBCD,
    TaylorADMM,
    by_name,
)
from whydeep.optimization.counts import check_counts

SETTINGS: list[tuple[Callable[..., Any], dict[str, Any], tuple[str, ...]]] = [
    (ADMM, {}, ("sweeps", "block_size")),
    (BCD, {}, ("sweeps", "resynchronise")),
    (DLADMM, {}, ("sweeps",)),
    (EMSA, {}, ("epochs", "batch_size", "inner")),
    (MSA, {}, ("epochs", "batch_size", "inner")),
    (Parle, {}, ("replicas", "epochs", "inner", "batch_size", "monitor")),
    (SaddleFreeNewton, {}, ("steps", "krylov", "dense_limit", "monitor")),
    (StochasticADMM, {}, ("epochs", "batch_size", "gram_every")),
    (StochasticBCD, {}, ("epochs", "batch_size")),
    (TaylorADMM, {}, ("sweeps", "warm_start")),
    (Backprop, {}, ("epochs",)),
    (Backprop, {}, ("steps",)),
    (Backprop, {"epochs": 1, "validation": 0.1}, ("batch_size", "patience", "monitor")),
    (EntropySGD, {"params": [torch.zeros(1)], "lr": 0.1}, ("inner",)),
]


@pytest.mark.parametrize(("solver", "given", "names"), SETTINGS)
@pytest.mark.parametrize("value", [1.5, 2.0, -1, math.nan, math.inf, True, "3"])
def test_what_a_solver_counts_is_a_whole_number(
    solver: Callable[..., Any], given: dict[str, Any], names: tuple[str, ...], value: object
) -> None:
    for name in names:
        with pytest.raises(ValueError, match=f"^{name}={value}; give a whole number, at least [01]"):
            solver(**given, **{name: value})


@pytest.mark.parametrize(("solver", "given", "names"), SETTINGS)
def test_a_whole_number_of_another_type_does(
    solver: Callable[..., Any], given: dict[str, Any], names: tuple[str, ...]
) -> None:
    for name in names:
        solver(**given, **{name: np.int64(2)})


def test_none_is_no_number_of_passes() -> None:
    with pytest.raises(ValueError, match="sweeps=None"):
        ADMM(sweeps=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size=None"):
        StochasticADMM(batch_size=None)  # type: ignore[arg-type]
    assert MSA(batch_size=None).batch_size is None


def test_the_least_is_the_first_that_does() -> None:
    check_counts(sweeps=1)
    check_counts(least=0, warm_start=0)
    with pytest.raises(ValueError, match="sweeps=0"):
        check_counts(sweeps=0)
    with pytest.raises(ValueError, match="warm_start=-1"):
        check_counts(least=0, warm_start=-1)


@pytest.mark.parametrize(
    "spec",
    [
        "admm?sweeps=2.5",
        "stochastic_admm?epochs=2.5",
        "emsa?epochs=1.5",
        "entropy_sgd?inner=1.5",
        "adam?epochs=yes",
        "sgd?lr=nan",
        "sgd?lr=inf",
        "sgd?momentum=nan",
        "parle?inner_lr=inf",
    ],
)
def test_a_name_with_a_number_that_cannot_be_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match=f"; change {spec.partition('?')[2]}"):
        by_name(spec, samples=100)
