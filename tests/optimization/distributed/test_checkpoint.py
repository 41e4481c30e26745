"""A training that is saved and goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import small_problem

from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.core.training import Status
from whydeep.networks import mlp
from whydeep.optimization import ADMM
from whydeep.optimization.alternating.admm.iteration import ADMMIteration
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.distributed.checkpoint import Checkpoint, load_checkpoint


@pytest.fixture
def problem():
    problem = small_problem("tanh", dtype=torch.float64)
    return Problem(problem.model, problem.train, loss="squared")


def test_a_run_goes_on_where_it_was_saved(problem, tmp_path):
    kept = Checkpoint(tmp_path / "new" / "run.safetensors", every=2)
    first = ADMM(sweeps=4, checkpoint=kept).train(problem)
    whole = ADMM(sweeps=9, checkpoint=replace(kept, resume=True)).train(problem)
    assert len(whole.history["loss"]) == 10
    for key, values in first.history.items():
        assert torch.equal(whole.history[key][:5], values), key
    assert bool((whole.history["seconds"].diff() > 0).all())
    # What it promises: a fresh start at the saved weights.
    fresh = ADMM(sweeps=5).train(problem.with_model(first.model))
    torch.testing.assert_close(whole.history["loss"][5:], fresh.history["loss"][1:], rtol=1e-12, atol=0)
    # At its end it was saved again, and then there is nothing left to do.
    done = ADMM(sweeps=9, checkpoint=replace(kept, resume=True)).train(problem)
    assert done.outcome.status is Status.BUDGET_SPENT
    assert torch.equal(done.model[-1].weight, whole.model[-1].weight)


def test_a_rescaled_start_is_not_rescaled_again(problem, tmp_path):
    kept = Checkpoint(tmp_path / "run.safetensors")
    first = ADMM(sweeps=3, spread=2.0, checkpoint=kept).train(problem)
    done = ADMM(sweeps=3, spread=2.0, checkpoint=replace(kept, resume=True)).train(problem)
    for value, other in zip(first.model.parameters(), done.model.parameters(), strict=True):
        assert torch.equal(value, other)


def test_the_best_iterate_and_the_caution_survive(problem, tmp_path, monkeypatch):
    kept = Checkpoint(tmp_path / "run.safetensors", every=1)
    sweep, betas, calls = ADMMIteration.sweep, [], []

    def break_down_once(iteration):
        calls.append(0)
        if len(calls) == 3:
            raise ArithmeticError("a state is not finite")
        betas.append(iteration.lagrangian.betas[0])
        sweep(iteration)

    monkeypatch.setattr(ADMMIteration, "sweep", break_down_once)
    settings = {"validation": 0.3, "checkpoint": kept}
    first = ADMM(sweeps=4, **settings).train(problem)
    saved = load_checkpoint(kept.path, _settings_in(kept.path))
    assert (saved.done, saved.restarts) == (4, 1)
    assert saved.score == float(first.history["validation"].min())
    for value, weight in zip(Chain.of(first.model).weights(), saved.best, strict=True):
        assert torch.equal(value, weight)
    ADMM(sweeps=5, **settings | {"checkpoint": replace(kept, resume=True)}).train(problem)
    assert betas == [1, 1, 2, 2, 2]  # doubled when it was taken back, and so it stays


def _settings_in(path):
    import json

    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["training"])["settings"]


def test_a_file_is_written_every_so_many_sweeps_and_whole(problem, tmp_path):
    seen = []
    kept = Checkpoint(tmp_path / "run.safetensors", every=3)

    def look(progress):
        seen.append(load_checkpoint(kept.path, _settings_in(kept.path)).done if kept.path.exists() else 0)

    ADMM(sweeps=7, checkpoint=kept).train(problem, callback=look)
    # The callback of a sweep comes before it is saved.
    assert seen == [0, 0, 0, 3, 3, 3, 6]
    assert load_checkpoint(kept.path, _settings_in(kept.path)).done == 7
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


def test_another_training_is_refused(problem, tmp_path):
    kept = Checkpoint(tmp_path / "run.safetensors")
    again = replace(kept, resume=True)
    with pytest.raises(InputError, match="there is no checkpoint"):
        ADMM(checkpoint=again).train(problem)
    ADMM(sweeps=2, checkpoint=kept).train(problem)
    with pytest.raises(InputError, match=r"another training: beta is 1\.0 there and 2\.0 here"):
        ADMM(beta=2.0, checkpoint=again).train(problem)
    few = replace(problem, train=problem.train.take(torch.arange(50)))
    with pytest.raises(InputError, match="training samples is 60 there and 50 here"):
        ADMM(checkpoint=again).train(few)
    other = problem.with_model(mlp((3, 6, 3), activation="tanh").double())
    with pytest.raises(InputError, match="another training: layers is"):
        ADMM(checkpoint=again).train(other)
    ADMM(sweeps=3, checkpoint=again, block_size=5).train(problem)  # where it is computed may change


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_file_is_refused(problem, tmp_path, content):
    path = tmp_path / "run.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no checkpoint of a training"):
        ADMM(checkpoint=Checkpoint(path, resume=True)).train(problem)


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="every=0"):
        Checkpoint(tmp_path / "run.safetensors", every=0)
    with pytest.raises(ValueError, match="checkpoint='run'"):
        ADMM(checkpoint="run")
