"""States in files: the same training, in memory for a block of samples only."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from problems import small_problem
from threaded_group import together

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.networks import mlp
from whydeep.optimization.alternating.admm.admm import ADMM
from whydeep.optimization.alternating.admm.start import STARTING
from whydeep.optimization.distributed.streaming import InFiles, InMemory, storage

CPU = torch.device("cpu")


class Computed:
    """Samples that are computed when they are read; `read` is how many at a time, at most."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.read = x, x.shape, x.dtype, 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, indices):
        self.read = max(self.read, len(indices))
        return self.x[indices]


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_the_training_is_the_same_up_to_rounding(activation, tmp_path):
    problem = small_problem(activation, dtype=torch.float64)
    settings = {"sweeps": 5, "block_size": 7, "validation": 0.2}
    memory, files = (ADMM(**settings, streaming=where).train(problem) for where in (False, tmp_path / "new"))
    for key, values in memory.history.items():
        if key != "seconds":  # memory that is aligned otherwise is summed in another order
            torch.testing.assert_close(values, files.history[key], rtol=1e-9, atol=1e-12)
    for key, value in memory.model.state_dict().items():
        torch.testing.assert_close(value, files.model.state_dict()[key], rtol=1e-9, atol=1e-12)
    assert list((tmp_path / "new").iterdir()) == []  # the files have no names, so that none is ever left behind


def test_lazy_samples_are_read_block_by_block(tmp_path):
    x = torch.rand(3000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = mlp((3, 4, 1), activation="tanh", generator=torch.Generator().manual_seed(1)).double()
    lazy = Computed(x)
    problem, whole = (Problem(network, Data(some, x[:, :1].square()), loss="squared") for some in (lazy, x))
    settings = {"sweeps": 3, "block_size": 16}
    found = ADMM(**settings, streaming=tmp_path).train(problem).history["loss"]
    assert lazy.read == STARTING < len(x)  # what the start's spread is measured on; the sweeps and the losses read less
    torch.testing.assert_close(found, ADMM(**settings).train(whole).history["loss"], rtol=1e-9, atol=0)


LIMITED = """
import json, resource, sys
import torch
from problems import small_problem
from threaded_group import together
from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.networks import mlp
from whydeep.optimization import ADMM
from whydeep.optimization.alternating.admm import admm

class Waves:
    shape, dtype = torch.Size((10_000, 50)), torch.float64
    def __len__(self):
        return self.shape[0]
    def __getitem__(self, indices):
        return torch.sin(torch.outer(indices.double() + 1, torch.arange(1, 51).double()))

def problem(n):
    data = Data(Waves(), torch.sin(torch.arange(10_000).double())[:, None]).take(torch.arange(n))
    start = torch.Generator().manual_seed(0)
    model = mlp((50, 200, 200, 1), activation="tanh", init="xavier", generator=start).double()
    return Problem(model, data, loss="squared")

solver = ADMM(sweeps=1, block_size=512)
solver.train(problem(1100))  # what libraries load and keep is there before the limit is set
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
limit = 1024 * int(status["VmData"].split()[0]) + 25_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
found = {}
try:
    solver.train(problem(10_000))
except InputError as fault:
    found["refused"] = str(fault)
check, admm.check_memory = admm.check_memory, lambda *rest, **more: None
try:
    solver.train(problem(10_000))
except RuntimeError as fault:
    found["without the check"] = str(fault)
admm.check_memory = check
streamed = ADMM(sweeps=1, block_size=512, streaming=sys.argv[1]).train(problem(10_000))
found["streamed"] = streamed.history["loss"].tolist()
print(json.dumps(found))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory as Linux does")
def test_what_does_not_fit_in_memory_is_refused_and_streams(tmp_path):
    """68 MB of states under a limit of 25 MB on private memory; maps of files do not count."""
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True, text=True, timeout=240, env=os.environ | own,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    told = re.match(r"ADMM needs about 0.084 GB for 10,000 samples in this network and ([\d.]+) GB", found["refused"])
    # The limit's 25 MB, and what libraries have given back since it was set: too little for the states in either case.
    assert told is not None
    assert 0.02 <= float(told[1]) < 0.068
    assert "streaming=True (0.068 GB on disk instead)" in found["refused"]
    assert "can't allocate memory" in found["without the check"]
    assert found["streamed"][1] < found["streamed"][0]


def test_processes_stream_their_shares(tmp_path):
    problem = small_problem("tanh", dtype=torch.float64)
    regression = Problem(problem.model, Data(problem.train.x, problem.train.x.cos()), loss="squared")
    settings = {"sweeps": 4, "block_size": 7}
    alone = ADMM(**settings).train(regression).history
    first, second = together(
        2, lambda group: ADMM(**settings, streaming=tmp_path, group=group).train(regression).history
    )
    for key in ("loss", "objective", "kkt", "feasibility"):
        torch.testing.assert_close(first[key], alone[key], rtol=1e-8, atol=1e-10)
        assert torch.equal(first[key], second[key])


def test_a_full_disk_is_said_before_the_start(tmp_path, monkeypatch):
    def full(handle, first, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"the states take .* GB in a file, and .* has .* GB left; name a folder"):
        ADMM(sweeps=1, streaming=tmp_path).train(small_problem("tanh"))
    assert list(tmp_path.iterdir()) == []


def test_storage_is_chosen_by_the_setting(tmp_path):
    assert isinstance(storage(False), InMemory)
    assert storage(True) == InFiles(storage(True).folder)
    assert storage(str(tmp_path)) == InFiles(tmp_path)
    tensor = InFiles(tmp_path).empty((3, 2), torch.float32, CPU)
    assert (tensor.shape, tensor.dtype) == ((3, 2), torch.float32)
    tensor.fill_(2.0)
    assert float(tensor.sum()) == 12
    assert InFiles(tmp_path).empty((0, 2), torch.float32, CPU).shape == (0, 2)
    with pytest.raises(InputError, match="worked on by the CPU"):
        InFiles(tmp_path).empty((3, 2), torch.float32, torch.device("meta"))
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="cannot write into"):
        InFiles(file).empty((3, 2), torch.float32, CPU)
    with pytest.raises(ValueError, match="streaming=3"):
        ADMM(streaming=3)
