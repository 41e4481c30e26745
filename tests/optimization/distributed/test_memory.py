"""Memory: what a training keeps is what is estimated, and what is free is the least of what the system tells."""

from __future__ import annotations

import pytest
import torch
from problems import small_problem
from torch import nn

from whydeep.core.errors import InputError
from whydeep.optimization import ADMM, BCD, DLADMM, TaylorADMM
from whydeep.optimization.alternating.admm.iteration import ADMMIteration
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.distributed import memory
from whydeep.optimization.distributed.memory import available_memory, check_memory, stored_bytes, working_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_stored_is_what_is_estimated(dtype):
    problem = small_problem("tanh")
    chain = Chain.of(problem.model)
    iteration = ADMMIteration(ADMM(dtype=dtype), problem, chain, problem.train)
    kept = {id(t.untyped_storage()): t.untyped_storage().nbytes() for t in (
        *iteration.state.states, *iteration.state.multipliers, iteration.lagrangian.targets)}  # fmt: skip
    assert stored_bytes(chain, 60, copies=2, dtype=dtype) == sum(kept.values())
    own = stored_bytes(chain, 60, copies=2, dtype=dtype, own_samples=False)
    assert stored_bytes(chain, 60, copies=2, dtype=dtype) - own == 60 * 3 * dtype.itemsize


def test_working_memory_grows_with_blocks_and_with_matrices():
    chain, wide = (Chain.of(nn.Sequential(nn.Linear(4, w), nn.Tanh(), nn.Linear(w, 2))) for w in (10, 1000))
    few, many = (working_bytes(chain, rows=rows, dtype=torch.float32) for rows in (100, 200))
    assert many > few
    # Its Gram matrix, a copy, a scaled copy and a factor, in float64.
    assert working_bytes(wide, rows=1, dtype=torch.float32) > 4 * 8 * 1001**2


def test_the_least_limit_counts(tmp_path, monkeypatch):
    assert available_memory() > 2**20
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    free = available_memory()
    (tmp_path / "memory.current").write_text("400000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() > 2**20
    assert free > 2**20
    (tmp_path / "memory.max").write_text("1000000\n")
    assert available_memory() == 600_000
    assert available_memory("meta") is None


def test_a_training_that_does_not_fit_is_refused_before_the_start(monkeypatch):
    problem, told = small_problem("tanh"), []
    monkeypatch.setattr(memory, "available_memory", lambda device: 5000)
    with pytest.raises(InputError, match=r"ADMM needs about .* for 60 samples .* are free; set streaming=True"):
        ADMM(sweeps=1).train(problem, callback=told.append)
    with pytest.raises(InputError, match="smaller block_size"):
        ADMM(sweeps=1, streaming=True, block_size=60).train(problem)
    assert told == []
    monkeypatch.setattr(memory, "available_memory", lambda device: None)  # not told: no refusal
    ADMM(sweeps=1).train(problem)


@pytest.mark.parametrize("solver", [BCD(sweeps=1), DLADMM(sweeps=1), TaylorADMM(sweeps=1)])
def test_solvers_that_keep_all_states_in_memory_say_what_would_fit(solver, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 5000)
    with pytest.raises(
        InputError, match=f"{type(solver).__name__} needs about .* take fewer samples, ADMM with stream"
    ):
        solver.train(small_problem("tanh"))


def test_the_device_is_named_where_it_is_not_the_cpu(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 1)
    with pytest.raises(InputError, match="are free on meta; do this"):
        check_memory("BCD", 2, samples=1, device=torch.device("meta"), remedy="do this")
