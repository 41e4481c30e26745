"""Solvers compute where the network and the data are."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch
from problems import small_problem

from whydeep.core.data import Data
from whydeep.optimization import ADMM, BCD, DLADMM, EMSA, MSA, StochasticADMM, TaylorADMM
from whydeep.optimization.alternating.stochastic_admm import stochastic_admm

SOLVERS = {
    "admm": ADMM(sweeps=2, validation=0.2),
    "admm exact": ADMM(sweeps=1, update="exact"),
    "bcd": BCD(sweeps=2, validation=0.2),
    "bcd two": BCD(sweeps=2, splitting="two"),
    "dladmm": DLADMM(sweeps=2),
    "emsa": EMSA(epochs=1, batch_size=16),
    "msa": MSA(epochs=1, ridge=0.2, inner=1),
    "stochastic": StochasticADMM(epochs=2, batch_size=16, validation=0.2),
    "taylor": TaylorADMM(sweeps=2),
}


def on_cpu(method):
    """Indices and seeds of the core are drawn on the CPU, from where they may index samples on any device."""

    @functools.wraps(method)
    def inside(*arguments, **more):
        with torch.device("cpu"):
            found = method(*arguments, **more)
            return list(found) if isinstance(found, Iterator) else found

    return inside


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("name", SOLVERS)
def test_no_tensor_is_made_on_the_default_device(name, activation, monkeypatch):
    problem = small_problem(activation)
    for method in ("batches", "split"):
        monkeypatch.setattr(Data, method, on_cpu(getattr(Data, method)))
    monkeypatch.setattr(stochastic_admm, "spawn", on_cpu(stochastic_admm.spawn))
    # A tensor made without a device would be one of "meta" here, and could be neither read nor mixed with the others.
    with torch.device("meta"):
        training = SOLVERS[name].train(problem, generator=torch.Generator(device="cpu").manual_seed(0))
    assert {p.device.type for p in training.model.parameters()} == {"cpu"}
    expected = SOLVERS[name].train(problem, generator=torch.Generator().manual_seed(0)).history
    for key, values in training.history.items():
        # Numbers of the history that were gathered in a list may be on any device.
        assert key == "seconds" or values.device.type == "meta" or torch.equal(values, expected[key]), key


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SOLVERS)
def test_a_gpu_gives_what_the_cpu_gives(name):
    problem = small_problem("sigmoid", dtype=torch.float64)
    found, expected = (
        SOLVERS[name].train(problem.to(device), generator=torch.Generator().manual_seed(0))
        for device in ("cuda", "cpu")
    )
    assert {p.device.type for p in found.model.parameters()} == {"cuda"}
    # Libraries sum in another order, and each sweep lets that grow.
    torch.testing.assert_close(found.history["loss"], expected.history["loss"], rtol=1e-6, atol=1e-9)
