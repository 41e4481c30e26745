"""StochasticADMM beside Adam, SGD and a packaged second-order peer on MNIST: test accuracy at equal seconds.

    .venv/bin/python benchmarks/bench_stochastic.py [--task shallow] [--data DIR] [--samples 20000] [--seeds 2] [--full]
        [--method engine|adam|sgd|soap|all] [--first 0] [--rate LR]

Tasks (sigmoid, cross-entropy): shallow is 784-3x300-10 and deep 784-10x300-10, both Xavier with gain 4; default is deep
from PyTorch's own start; rescaled is deep from PyTorch's start after `rescaled(spread=1)`, for everyone; fifty is
784-50x100-10, orthogonal, after `rescaled(spread=0.5)`, for everyone. --task all runs them in turn.

Step sizes are chosen from the printed grid on a sixth of the training images that is held back, with one seed; then
every method trains on all of them, from the starts of the same seeds. Adam, SGD (momentum 0.9) and SOAP (of the package
`pytorch_optimizer`, where it is installed) run with a cosine schedule over 5 passes, or as many more as fill the
engine's seconds; those are its own where it runs, else its second pass, timed in the same run, times its passes. SOAP
takes minibatches of 500, as the engine does: with 128 it needs four times as long. The engine's settings are its
defaults for every task, chosen on held-back images. --full takes 60,000 images and 5 seeds: an hour a task in one
thread, which --method cuts into pieces (rows of the same table), and --first and --seeds into single seeds, --rate
being the step size that an earlier piece has chosen.

"cpu s" is processor time, summed over threads: a run's seconds times the share of the processor that it had.

Tried and not kept, accuracy on 10,000 held-back images. By the chain rule with plain momentum, 784-3x300-10, 50,000
images, 5 passes, .981 (one or two seeds, apart by .001): tau 0.3 .980, 0.1 .979; minibatches of 1,000 .978, of 250 .981
and a fifth slower; a Gram matrix every 20 minibatches .9805 and no faster. 20,000 images, 3 passes: a Gram matrix with
its mean .943, centred .952. 784-10x300-10 from PyTorch's start, 20,000 images: one norm for weights and bias together
.55 (6 passes), apart .90 (5 passes). A second sweep against the same local targets before re-synchronising, 20,000
images, 3 passes: .942 against .957 at 3 layers, chance at 10, at nearly twice the time.

What V-steps and Nesterov's form of momentum bring, 20,000 images, 5 passes, seed 0, from gain 4 / from PyTorch's start,
ten layers of 300, the same time within a tenth: chain rule and plain momentum .954 / .921; Nesterov .957 / .931;
V-steps (state_damping 3) .953 / .948; both .957 / .956; both with state_damping 10, which is kept, .961 / .956. Three
layers, 10,000 images, two seeds: plain .948 .946, Nesterov .950 .948, both .952 .950. Fifty layers, 6,000 images, 8
passes: .901, .891, .913. Not kept: V-steps without Nesterov at state_damping 1 .940 / .942, 0.1 .900 / .883, 0.01 .873
/ .841; 0.1 with s'/(s'^2 + 0.01) in place of s' .906 / .863. The outputs' multipliers of each sample kept from pass to
pass and the new ones added, with momentum 0.5 .945 / .871, 0.9 .947 / .827. Looking further ahead than the momentum
leads, three times, .958 / .914.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

import whydeep as wd
from whydeep.core.training import Solver, Training
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
    """A rival: the step sizes tried, and its solver at one of them for so many passes."""

    name: str
    grid: Sequence[float]
    solver: Callable[[float, int], Backprop]


@dataclass(frozen=True)
class Run:
    """What one training came to, and its processor seconds."""

    training: Training
    cpu: float

    @property
    def spent(self) -> float:
        """The seconds that are made equal: threads that wait use the processor, too, so of several the clock's."""
        return self.cpu if torch.get_num_threads() == 1 else self.training.seconds


def methods() -> dict[str, Method]:
    """Return the rivals by their names on the command line."""

    def back(
        optimizer: Callable[..., torch.optim.Optimizer], lr: float, epochs: int, *, batch: int = 128, **options: object
    ) -> Backprop:
        return Backprop(optimizer, lr=lr, epochs=epochs, batch_size=batch, schedule="cosine", options=options)

    found = {
        # The fused step is the faster one, and the same to rounding.
        "adam": Method("Adam", (1e-3, 2e-3, 3e-3, 5e-3), partial(back, torch.optim.Adam, fused=True)),
        "sgd": Method("SGD", (0.05, 0.1, 0.3), partial(back, torch.optim.SGD, momentum=0.9)),
    }
    try:
        soap = importlib.import_module("pytorch_optimizer").SOAP
    except ImportError:
        print("peer SOAP: pytorch_optimizer is not installed", file=sys.stderr)
        return found
    return found | {"soap": Method("SOAP", (3e-3, 1e-2), partial(back, soap, batch=500, weight_decay=0.0))}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def accuracy(training: Training, data: Data) -> float:
    with torch.no_grad():
        hits = sum(int((training.model(x).argmax(1) == y).sum()) for x, y in data.batches(5000))
    return hits / len(data)


def timed(solver: Solver, problem: Problem, seed: int) -> Run:
    clock, processor = time.perf_counter(), time.process_time()
    training = solver.train(problem, generator=seeded(seed))
    share = (time.process_time() - processor) / (time.perf_counter() - clock)
    return Run(training, training.seconds * share)


def every_seed(solver: Solver, starts: Mapping[int, Problem], test: Data) -> list[Run]:
    """Train from every start; what a seed came to is told at once, as a long benchmark may be cut off."""
    runs = []
    for seed, start in starts.items():
        runs.append(timed(solver, start, seed))
        reached = accuracy(runs[-1].training, test)
        print(f"seed {seed}: test {reached:.4f}, {runs[-1].cpu:.1f} cpu s", file=sys.stderr, flush=True)
    return runs


def row(name: str, setting: str, passes: int, runs: Sequence[Run], test: Data) -> str:
    reached = [accuracy(run.training, test) for run in runs]
    fitted = statistics.mean(1 - float(run.training.history["error"][-1]) for run in runs)
    spread = statistics.stdev(reached) if len(reached) > 1 else math.nan
    seconds = statistics.mean(run.training.seconds for run in runs)
    listed = " ".join(f"{value:.4f}" for value in reached)
    return (
        f"| {name} | {setting} | {passes} | {seconds:.1f} | {statistics.mean(run.cpu for run in runs):.1f} "
        f"| {fitted:.4f} | {statistics.mean(reached):.4f} ({spread:.4f}) | {listed} |"
    )


def engines_budget(engine: StochasticADMM, start: Problem) -> float:
    """Return the seconds that the engine needs, from two passes: the first one whitens the data."""
    run = timed(replace(engine, epochs=2), start, 0)
    share = run.spent / run.training.seconds
    first, second = (float(run.training.history["seconds"][passes]) for passes in (1, 2))
    return share * (first + (engine.epochs - 1) * (second - first))


def chosen_rate(method: Method, task: Task, train: Data) -> tuple[float, str]:
    """Return the step size with the best accuracy on the sixth that is held back, and how all of them did."""
    cut = len(train) * 5 // 6
    inner, held = train.take(torch.arange(cut)), train.take(torch.arange(cut, len(train)))
    found = {}
    for rate in method.grid:
        found[rate] = accuracy(
            method.solver(rate, task.passes).train(task.problem(inner, 0), generator=seeded(0)), held
        )
        print(f"{method.name} {rate:g}: held back {found[rate]:.4f}", file=sys.stderr, flush=True)
    listed = ", ".join(f"{rate:g}: {value:.4f}" for rate, value in found.items())
    return max(method.grid, key=lambda rate: found[rate]), f"held back {listed}"


def compare(
    name: str, rivals: Sequence[Method], train: Data, test: Data, seeds: range, *, engine: bool, rate: float | None
) -> None:
    """Print one table: the engine if it is asked for, then its rivals in its seconds."""
    task = TASKS[name]
    starts = {seed: task.problem(train, seed) for seed in seeds}
    print(f"\n{name}: {len(train)} images, {torch.get_num_threads()} threads; test: mean (standard deviation)\n")
    print("| method | setting | passes | seconds | cpu s | train | test | every seed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    budget = None
    if engine:
        runs = every_seed(task.engine, starts, test)
        print(row("StochasticADMM", "defaults", task.engine.epochs, runs, test), flush=True)
        budget = statistics.mean(run.spent for run in runs)
    for method in rivals:
        budget = engines_budget(task.engine, starts[seeds[0]]) if budget is None else budget
        step, listed = (rate, "chosen before") if rate is not None else chosen_rate(method, task, train)
        one = timed(method.solver(step, 1), starts[seeds[0]], 0).spent
        passes = max(task.passes, math.ceil(budget / one))
        runs = every_seed(method.solver(step, passes), starts, test)
        print(row(method.name, f"lr {step:g} ({listed})", passes, runs, test), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=[*TASKS, "all"], default="shallow")
    parser.add_argument("--method", choices=["engine", "adam", "sgd", "soap", "all"], default="all")
    parser.add_argument("--data", default=os.path.join(os.environ.get("WHYDEEP_DATA", "../shared/data"), "mnist"))
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--rate", type=float, help="the rivals' step size, without a choice")
    parser.add_argument("--full", action="store_true", help="60,000 images and 5 seeds")
    options = parser.parse_args()
    if options.full:
        options.samples, options.seeds = 60_000, 5
    rivals = methods()
    if options.method not in ("all", "engine", *rivals):
        parser.error(f"{options.method} is not installed")
    asked = (
        list(rivals.values()) if options.method == "all" else [rivals[one] for one in rivals if one == options.method]
    )
    train, test = wd.data.load(f"mnist:{options.data}")
    for name in TASKS if options.task == "all" else [options.task]:
        compare(
            name,
            asked,
            train.take(torch.arange(options.samples)),
            test,
            range(options.first, options.first + options.seeds),
            engine=options.method in ("all", "engine"),
            rate=options.rate,
        )


if __name__ == "__main__":
    main()
