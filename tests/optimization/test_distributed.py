"""Training by several processes: real ones of torch.distributed on gloo, and threads that stand for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from problems import small_problem

from whydeep.core.problem import Problem
from whydeep.optimization.admm import ADMM

TESTS = Path(__file__).parent.parent


def launch(size: int, script: Path, *arguments: object, port: int) -> list[subprocess.Popen[str]]:
    """Start `size` processes as torchrun would, without its agent: every one stays under our own control."""
    found = []
    for rank in range(size):
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1, "PYTHONPATH": TESTS}
        environment = os.environ | {key: str(value) for key, value in (told | own).items()}
        command = [sys.executable, str(script), *map(str, arguments)]
        found.append(
            subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    return found


TRAIN = """
import json, sys
import torch, torch.distributed as dist
from problems import small_problem
from whydeep.optimization import ADMM
from whydeep.optimization.distributed import joined

folder, cases = sys.argv[1], json.loads(sys.argv[2])
sent = 0
for name in ("all_reduce", "broadcast"):  # the bytes are counted where torch.distributed is called
    def counted(tensor, *rest, original=getattr(dist, name), **more):
        global sent
        sent += tensor.numel() * tensor.element_size()
        return original(tensor, *rest, **more)
    setattr(dist, name, counted)
with joined() as group:
    for name, (activation, dtype, loss, settings) in cases.items():
        problem = small_problem(activation, dtype=getattr(torch, dtype))
        problem = type(problem)(problem.model, problem.train, loss=loss)
        before = sent, group.sent
        marks = []
        training = ADMM(**settings, group=group).train(
            problem, generator=torch.Generator().manual_seed(3), callback=lambda p: marks.append(sent - before[0]))
        torch.save({"state": training.model.state_dict(), "history": dict(training.history), "marks": marks,
                    "outcome": training.outcome.reason, "sent": group.sent - before[1]},
                   f"{folder}/{name}.{group.rank}.pt")
"""
CASES = {
    "smooth": ("tanh", "float64", "squared", {"sweeps": 8, "block_size": 11}),
    "kinked": ("relu", "float64", "cross_entropy", {"sweeps": 6}),
    "validated": ("sigmoid", "float64", "cross_entropy", {"sweeps": 8, "validation": 0.3}),
    "exact": ("tanh", "float64", "squared", {"sweeps": 2, "update": "exact"}),
    "single": ("sigmoid", "float32", "squared", {"sweeps": 3}),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What two processes found, each, for every case."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "train.py"
    script.write_text(TRAIN)
    processes = launch(2, script, folder, json.dumps(CASES), port=29631)
    for process in processes:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    return {name: [torch.load(folder / f"{name}.{rank}.pt") for rank in range(2)] for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_result_of_one(trained, name):
    activation, dtype, loss, settings = CASES[name]
    problem = small_problem(activation, dtype=getattr(torch, dtype))
    problem = Problem(problem.model, problem.train, loss=loss)
    alone = ADMM(**settings).train(problem, generator=torch.Generator().manual_seed(3))
    first, second = trained[name]
    single = dtype == "float32"
    # The orders of summation differ by rounding, which grows with the sweeps. In single precision (6e-8) weights along
    # flat directions move far more than the risk does, also when one process takes other blocks: the risk is compared.
    tolerance = 1e-5 if single else 1e-8
    for key, value in alone.model.state_dict().items():
        assert single or torch.allclose(first["state"][key], value, rtol=tolerance, atol=tolerance)
        assert torch.equal(first["state"][key], second["state"][key])
    assert first["outcome"] == second["outcome"] == alone.outcome.reason
    assert set(first["history"]) == set(alone.history)
    for key, values in alone.history.items():
        if key != "seconds":
            if not single or key in ("loss", "error"):
                torch.testing.assert_close(first["history"][key], values, rtol=tolerance, atol=tolerance)
            assert torch.equal(first["history"][key], second["history"][key]), key


def test_the_group_counts_what_torch_distributed_is_given(trained):
    for name in CASES:
        for found in trained[name]:
            # The callback of the last sweep comes before the last message, which tells whether to stop: 8 bytes.
            assert found["sent"] == found["marks"][-1] + 8
