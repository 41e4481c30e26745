"""Training by several processes: real ones of torch.distributed on gloo, and threads that stand for them."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from problems import small_problem
from safetensors import safe_open
from safetensors.torch import load_file
from threaded_group import together

from whydeep import cli
from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.core.training import Status
from whydeep.optimization.alternating.admm.admm import ADMM
from whydeep.optimization.alternating.admm.iteration import ADMMIteration
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.distributed.group import (
    ALONE,
    Processes,
    any_of,
    check_same,
    dealt,
    joined,
    neighbours,
    share,
)
from whydeep.optimization.distributed.traffic import Machine, Shapes, bytes_of_a_sweep, seconds_of_a_sweep

TESTS = Path(__file__).parents[2]


def launch(size: int, script: Path, *arguments: object) -> list[subprocess.Popen[str]]:
    """Start `size` processes as torchrun would, without its agent: every one stays under our own control."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
from whydeep.optimization.distributed.group import joined

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
    processes = launch(2, script, folder, json.dumps(CASES))
    for process in processes:
        _, told = process.communicate(timeout=240)
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


@pytest.mark.parametrize("name", ["smooth", "single"])
def test_the_bytes_of_a_sweep_are_those_predicted(trained, name):
    activation, dtype, _, _ = CASES[name]
    shapes = Shapes.of(Chain.of(small_problem(activation, dtype=getattr(torch, dtype)).model))
    for found in trained[name]:
        # From one call of the callback to the next; the first sweep also sends the Gram matrix of the samples.
        sweeps = [later - earlier for earlier, later in pairwise(found["marks"])]
        assert sweeps == [bytes_of_a_sweep(shapes)] * len(sweeps)
    assert bytes_of_a_sweep(shapes, first=True) - bytes_of_a_sweep(shapes) == 8 * 4 * 5 // 2  # 3 inputs and a bias


@pytest.mark.slow
def test_torchrun_writes_what_one_process_writes(tmp_path):
    arguments = ["-m", "whydeep", "train", "--data", "synthetic:gaussian_mixture?n=200", "--solver", "admm?sweeps=3",
                 "--model", "mlp:5?activation=tanh", "--loss", "squared", "--device", "cpu", "--seed", "1"]  # fmt: skip
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command, folder in (([sys.executable], "one"), (run, "two")):
        done = subprocess.run(
            [*command, *arguments, "--out", folder], cwd=tmp_path, capture_output=True, text=True, timeout=240,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("3 sweeps done") == 1  # the first process alone tells
    one, two = (json.loads((tmp_path / folder / "training.json").read_text()) for folder in ("one", "two"))
    assert (one["config"]["processes"], two["config"]["processes"]) == (1, 2)
    torch.testing.assert_close(
        torch.tensor(one["history"]["loss"]), torch.tensor(two["history"]["loss"]), rtol=1e-5, atol=0
    )
    states = [load_file(tmp_path / folder / "weights.safetensors") for folder in ("one", "two")]
    assert set(states[0]) == set(states[1])


def test_a_lost_process_ends_the_others_and_the_run_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    script = tmp_path / "whydeep_cli.py"
    script.write_text("from whydeep.cli import main\nmain()\n")
    case = ["train", "--model", "mlp:8,8?activation=tanh", "--device", "cpu", "--out", tmp_path / "out"]
    processes = launch(2, script, *case, "--solver", "admm?sweeps=100000", "--checkpoint", 2)
    kept = tmp_path / "out" / "checkpoint.safetensors"
    try:
        until = time.monotonic() + 240
        while not kept.exists():
            assert time.monotonic() < until
            assert processes[0].poll() is None, processes[0].communicate()[1]
            time.sleep(0.05)
        processes[1].kill()
        _, told = processes[0].communicate(timeout=200)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode == 1
    assert "process 0 of 2 has lost another one" in told
    assert "--resume" in told
    assert "Traceback" not in told
    assert not (tmp_path / "out" / "weights.safetensors").exists()
    with safe_open(kept, framework="pt") as file:
        saved = json.loads(file.metadata()["training"])
    more = saved["done"] + 3
    again = ["whydeep", *map(str, case), "--solver", f"admm?sweeps={more}", "--resume"]  # one process is enough now
    monkeypatch.setattr(sys, "argv", again)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    found = json.loads((tmp_path / "out" / "training.json").read_text())
    assert len(found["history"]["loss"]) == more + 1
    assert found["history"]["loss"][: saved["done"] + 1] == saved["history"]["loss"]


def test_a_process_that_breaks_down_takes_all_back():
    problem = small_problem("tanh", dtype=torch.float64)

    def work(group):
        training = ADMM(sweeps=4, group=group).train(problem)
        return training.outcome, training.history["loss"], training.model[1].weight

    def break_down(iteration):
        broken.append(iteration.group.rank)
        sweep(iteration)
        if iteration.group.rank == 1 and broken.count(1) == 2:
            raise ArithmeticError("the output step did not converge")

    broken, sweep = [], ADMMIteration.sweep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ADMMIteration, "sweep", break_down)
        (first, first_loss, first_weight), (second, second_loss, second_weight) = together(2, work)
    assert first.status is second.status is Status.BUDGET_SPENT
    assert "1 times taken back" in first.reason
    assert first.reason == second.reason
    assert torch.equal(first_loss, second_loss)
    assert torch.equal(first_weight, second_weight)


def test_a_callback_of_one_process_stops_all():
    problem = small_problem("tanh", dtype=torch.float64)

    def work(group):
        return ADMM(sweeps=9, group=group).train(problem, callback=lambda p: group.rank == 1 and p.done == 2)

    assert [training.outcome.status for training in together(2, work)] == [Status.INTERRUPTED] * 2


def test_a_gram_matrix_that_is_not_finite_is_seen_by_all():
    problem = small_problem("tanh", dtype=torch.float64)

    def work(group):
        iteration = ADMMIteration(ADMM(group=group), problem, Chain.of(problem.model), share(group, problem.train))
        iteration.state.states[1][0] = math.nan if group.rank == 1 else 0.5
        with pytest.raises(ArithmeticError):
            iteration.sweep()
        return True

    assert together(2, work) == [True, True]


def test_processes_with_different_problems_are_refused():
    problem = small_problem("tanh", dtype=torch.float64)
    other = replace(problem, train=replace(problem.train, y=problem.train.y.flip(0)))

    def work(group):
        with pytest.raises(InputError, match="different networks, data or seeds"):
            ADMM(sweeps=1, group=group).train(other if group.rank else problem)
        with pytest.raises(InputError, match="different networks, data or seeds"):
            ADMM(sweeps=1, group=group, validation=0.2).train(
                problem, generator=torch.Generator().manual_seed(group.rank)
            )
        return True

    assert together(2, work) == [True, True]


def test_more_processes_than_samples_are_refused_and_held_back_samples_need_not_reach_all():
    problem = small_problem("tanh", dtype=torch.float64)
    few = replace(problem, train=problem.train.take(torch.arange(2)), test=None)

    def work(group):
        with pytest.raises(InputError, match="2 samples for 3 processes"):
            ADMM(sweeps=1, group=group).train(few)
        return ADMM(sweeps=3, group=group, validation=1 / 60).train(problem).history["validation"]  # one of 60 samples

    first, *others = together(3, work)
    alone = ADMM(sweeps=3, validation=1 / 60).train(problem).history["validation"]
    assert all(torch.equal(first, other) for other in others)
    torch.testing.assert_close(first, alone, rtol=1e-9, atol=0)


def test_shares_are_all_samples_in_their_order_and_differ_by_one():
    data = Data(torch.arange(11.0)[:, None], torch.zeros(11, 1))

    class Of:
        def __init__(self, rank):
            self.rank, self.size = rank, 4

    parts = [share(Of(rank), data) for rank in range(4)]
    assert torch.equal(torch.cat([part.x for part in parts]), data.x)
    assert {len(part) for part in parts} == {2, 3}
    assert share(ALONE, data) is data
    assert share(Of(2), None) is None


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_tasks_are_dealt_out_by_their_cost(size):
    costs = [4.0, 1.0, 9.0, 2.0, 2.0]
    owners = dealt(costs, size)
    busy = [sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == rank) for rank in range(size)]
    # Graham 1969: the longest task first is within 4/3 - 1/(3 size) of the optimum; here that is one of these two.
    assert max(busy) <= (4 / 3 - 1 / (3 * size)) * max(max(costs), sum(costs) / size)
    assert set(owners) <= set(range(size))


def test_alone_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with joined() as group:
        assert group is ALONE
    assert any_of(ALONE, True)
    assert not any_of(ALONE, False)
    check_same(ALONE, torch.tensor([1.0]))
    assert neighbours(ALONE) == 1
    with pytest.raises(InputError, match="init_process_group"):
        Processes()
    with pytest.raises(ValueError, match="group=3"):
        ADMM(group=3)


def test_the_model_of_the_time_has_its_three_terms():
    shapes = Shapes.of_widths(784, 300, 300, 300, 10)
    fast = Machine(products=math.inf, solves=math.inf, link=1e9, latency=0.0)
    # Only the bytes are left: those summed 2 (R - 1)/R times, those handed out once. Weights are a b numbers a layer.
    weights = 785 * 300 + 2 * 301 * 300 + 301 * 10
    handed_out = 4 * (weights + 2 * 300 * 300 + 300 * 10)
    expected = 1.5 * (bytes_of_a_sweep(shapes) - handed_out) + handed_out
    assert seconds_of_a_sweep(shapes, 60_000, 4, fast) == pytest.approx(expected / 1e9, rel=1e-12)
    late = Machine(products=math.inf, solves=math.inf, link=math.inf, latency=1e-3)
    assert seconds_of_a_sweep(shapes, 60_000, 1000, late) == pytest.approx(13 * 10e-3)  # 2^10 > 1000, four layers
    assert seconds_of_a_sweep(shapes, 60_000, 1, fast) == 0
    solving = Machine(products=math.inf, solves=1e9, link=math.inf, latency=0.0)
    # The largest solve is that of the first layer: 785^3/3 + 2 785^2 300; no number of processes goes below it.
    assert seconds_of_a_sweep(shapes, 60_000, 1000, solving) >= (785**3 / 3 + 2 * 785**2 * 300) / 1e9
    work = Machine(products=1e9, solves=math.inf, link=math.inf, latency=0.0)
    times = [seconds_of_a_sweep(shapes, 60_000, count, work) for count in (1, 10, 1000)]
    assert times == pytest.approx([times[0], times[0] / 10, times[0] / 1000])
