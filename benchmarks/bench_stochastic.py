"""StochasticADMM beside Adam, SGD and a packaged second-order peer on MNIST: test accuracy at equal seconds.

    .venv/bin/python benchmarks/bench_stochastic.py [--task shallow] [--data DIR] [--samples 20000] [--seeds 2] [--full]

Tasks (sigmoid, cross-entropy): shallow is 784-3x300-10 and deep 784-10x300-10, both Xavier with gain 4; default is deep
from PyTorch's own start; rescaled is deep from PyTorch's start after `rescaled(spread=1)`, for everyone; fifty is
784-50x100-10, orthogonal, after `rescaled(spread=0.5)`, for everyone. --task all runs them in turn.

Step sizes are chosen from the printed grid on a sixth of the training images that is held back, with one seed; then
every method trains on all of them, from the starts of the same seeds. Adam, SGD (momentum 0.9) and SOAP (of the package
`pytorch_optimizer`, where it is installed) run with a cosine schedule over 5 passes, or as many more as fill the
seconds of the engine's. The engine's settings are its defaults for every task, chosen on held-back images. --full takes
60,000 images and 5 seeds (some ten minutes a task).

Tried and not kept, accuracy on 10,000 held-back images. 784-3x300-10, 50,000 images, 5 passes, the kept form .981 (one
or two seeds, apart by .001): tau 0.3 .980, 0.1 .979; minibatches of 1,000 .978, of 250 .981 and a fifth slower; a
Gram matrix every 20 minibatches .9805 and no faster. 20,000 images, 3 passes: a Gram matrix with its mean .943, centred
.952. 784-10x300-10 from PyTorch's start, 20,000 images: one norm for weights and bias together .55 (6 passes), apart
.90 (5 passes). A second sweep against the same local targets before re-synchronising, 20,000 images, 3 passes: .942
against .957 at 3 layers, chance at 10, at nearly twice the time.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

import whydeep as wd
from whydeep.core.training import Training
from whydeep.networks import mlp
from whydeep.optimization import Backprop
from whydeep.optimization.alternating.stochastic_admm.rescaled_start import rescaled
from whydeep.optimization.alternating.stochastic_admm.stochastic_admm import StochasticADMM

Problem, Data = wd.Problem, wd.Data


@dataclass(frozen=True)
class Task:
    """A network, its start, and what the engine is told about it."""

    hidden: Sequence[int]
    init: str = "xavier"
    gain: float = 4.0
    spread: float | None = None
    engine: StochasticADMM = field(default_factory=StochasticADMM)
    passes: int = 5

    def problem(self, train: Data, seed: int) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # PyTorch's own start knows no other generator
            widths = (784, *self.hidden, 10)
            model = mlp(widths, activation="sigmoid", init=self.init, gain=self.gain, generator=generator)
        problem = Problem(model, train)
        return problem if self.spread is None else rescaled(problem, spread=self.spread)


TASKS = {
    "shallow": Task([300] * 3),
    "deep": Task([300] * 10),
    "default": Task([300] * 10, init="default"),
    "rescaled": Task([300] * 10, init="default", spread=1.0),
    "fifty": Task([100] * 50, init="orthogonal", spread=0.5),
}


@dataclass(frozen=True)
class Method:
    name: str
    grid: Sequence[float]
    solver: Callable[[float, int], Backprop]


def methods() -> list[Method]:
    def back(optimizer: Callable[..., torch.optim.Optimizer], lr: float, epochs: int, **options: object) -> Backprop:
        return Backprop(optimizer, lr=lr, epochs=epochs, batch_size=128, schedule="cosine", options=options)

    found = [
        # The fused step is the faster one, and the same to rounding.
        Method("Adam", (1e-3, 2e-3, 3e-3, 5e-3), partial(back, torch.optim.Adam, fused=True)),
        Method("SGD", (0.05, 0.1, 0.3), partial(back, torch.optim.SGD, momentum=0.9)),
    ]
    try:
        soap = importlib.import_module("pytorch_optimizer").SOAP
    except ImportError:
        print("peer SOAP: pytorch_optimizer is not installed")
        return found
    return [*found, Method("SOAP", (1e-3, 3e-3), partial(back, soap, weight_decay=0.0))]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def accuracy(training: Training, data: Data) -> float:
    with torch.no_grad():
        hits = sum(int((training.model(x).argmax(1) == y).sum()) for x, y in data.batches(5000))
    return hits / len(data)


def row(name: str, setting: str, passes: int, trainings: Sequence[Training], test: Data) -> str:
    reached = [accuracy(training, test) for training in trainings]
    fitted = statistics.mean(1 - float(training.history["error"][-1]) for training in trainings)
    spread = statistics.stdev(reached) if len(reached) > 1 else math.nan
    seconds = statistics.mean(training.seconds for training in trainings)
    listed = " ".join(f"{value:.4f}" for value in reached)
    return (
        f"| {name} | {setting} | {passes} | {seconds:.1f} | {fitted:.4f} | {statistics.mean(reached):.4f} "
        f"({spread:.4f}) | {listed} |"
    )


def compare(name: str, task: Task, rivals: Sequence[Method], train: Data, test: Data, seeds: int) -> None:
    cut = len(train) * 5 // 6
    inner, held = train.take(torch.arange(cut)), train.take(torch.arange(cut, len(train)))
    starts = [task.problem(train, seed) for seed in range(seeds)]
    print(f"\n{name}: {len(train)} images, {torch.get_num_threads()} threads; test: mean (standard deviation)\n")
    print("| method | setting | passes | seconds | train | test | every seed |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    engine = [task.engine.train(start, generator=seeded(seed)) for seed, start in enumerate(starts)]
    print(
        row(
            "StochasticADMM",
            "defaults",
            task.engine.epochs,
            engine,
            test,
        ),
        flush=True,
    )
    budget = statistics.mean(training.seconds for training in engine)
    for method in rivals:
        tried = {}
        for lr in method.grid:
            training = method.solver(lr, task.passes).train(task.problem(inner, 0), generator=seeded(0))
            tried[lr] = (accuracy(training, held), training.seconds * len(train) / len(inner))
        best = max(method.grid, key=lambda lr: tried[lr][0])
        passes = max(task.passes, math.ceil(task.passes * budget / tried[best][1]))
        runs = [method.solver(best, passes).train(s, generator=seeded(i)) for i, s in enumerate(starts)]
        grid = ", ".join(f"{lr:g}: {found:.4f}" for lr, (found, _) in tried.items())
        print(row(method.name, f"lr {best:g} (held back {grid})", passes, runs, test), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=[*TASKS, "all"], default="shallow")
    parser.add_argument("--data", default=os.path.join(os.environ.get("WHYDEEP_DATA", "../shared/data"), "mnist"))
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="60,000 images and 5 seeds")
    options = parser.parse_args()
    if options.full:
        options.samples, options.seeds = 60_000, 5
    train, test = wd.data.load(f"mnist:{options.data}")
    rivals = methods()
    for name in TASKS if options.task == "all" else [options.task]:
        compare(name, TASKS[name], rivals, train.take(torch.arange(options.samples)), test, options.seeds)


if __name__ == "__main__":
    main()
