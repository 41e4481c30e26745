"""E-MSA and MSA beside SGD and Adam: the risk at equal passes and at equal seconds.

    .venv/bin/python benchmarks/bench_msa.py [--task sine] [--passes 5] [--seeds 1] [--full]
    .venv/bin/python benchmarks/bench_msa.py --task sine --full --method SGD --budget 250      one row of the table

Tasks: sine is sin on [-pi, pi], 500 samples, by 20 residual tanh layers of 5 units (delta 0.25) between two fixed
linear maps, squared loss; digits is scikit-learn's 1,437 training images by 64-50-50-10 tanh, cross-entropy.

Every method has the printed grid of one setting. It is chosen by the risk on a tenth of the training data that is held
back, after the passes of the table, with the first seed; then it trains on all of them from the starts of all seeds.
The last column is at equal seconds: the best risk that a method has reached when the slowest method's passes are over;
those that are faster run for as many more passes as that takes (the column before), at the setting chosen. The test
figure is of the iterate after the equal passes, and is read once. --full takes 20 passes and 3 seeds. Rows can be made
one by one: --method names one, and --budget the seconds of the slowest method, which E-MSA's own row tells.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import nn

from whydeep.core import Data, Problem
from whydeep.core.training import Solver, Training
from whydeep.networks import mlp
from whydeep.networks.residual import residual_mlp
from whydeep.optimization import EMSA, MSA, Backprop


@dataclass(frozen=True)
class Method:
    """A name, the setting that is chosen from a grid, and the solver for (setting, passes)."""

    name: str
    setting: str
    grid: Sequence[float]
    solver: Callable[[float, int], Solver]


METHODS = (
    Method("E-MSA", "rho", (0.1, 1.0, 10.0, 100.0), lambda rho, passes: EMSA(epochs=passes, batch_size=100, rho=rho)),
    Method("MSA", "ridge", (0.001, 0.1, 1.0), lambda ridge, passes: MSA(epochs=passes, batch_size=100, ridge=ridge)),
    Method(
        "SGD",
        "lr",
        (0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0),
        lambda lr, passes: Backprop(
            torch.optim.SGD, lr=lr, epochs=passes, batch_size=100, options={"momentum": 0.9, "nesterov": True}
        ),
    ),
    Method(
        "Adam",
        "lr",
        (0.001, 0.003, 0.01, 0.03, 0.1),
        lambda lr, passes: Backprop(torch.optim.Adam, lr=lr, epochs=passes, batch_size=100),
    ),
)
LONGEST = 2000
"""No method runs for more passes than this to fill the seconds of the slowest."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sine(seed: int) -> tuple[nn.Module, Data, Data, str]:
    generator = seeded(seed)
    spread, total = nn.Linear(1, 5, bias=False), nn.Linear(5, 1, bias=False)
    for fixed in (spread, total):
        nn.init.ones_(fixed.weight).requires_grad_(False)
    blocks = residual_mlp(5, 20, delta=0.25, generator=generator, scale=0.2)
    x = math.pi * (2 * torch.rand(1000, 1, generator=seeded(100)) - 1)
    data = Data(x, torch.sin(x))
    split = torch.arange(1000)
    return nn.Sequential(spread, *blocks, total), data.take(split[:500]), data.take(split[500:]), "squared"


def digits(seed: int) -> tuple[nn.Module, Data, Data, str]:
    raw = load_digits()
    order = torch.randperm(1797, generator=seeded(100))
    x = (torch.from_numpy(raw.images) / 16).float().flatten(1)[order]
    data = Data(x, torch.from_numpy(raw.target).long()[order], classes=10)
    model = mlp((64, 50, 50, 10), activation="tanh", init="xavier", generator=seeded(seed))
    return model, data.take(torch.arange(1437)), data.take(torch.arange(1437, 1797)), "cross_entropy"


TASKS = {"sine": sine, "digits": digits}


def choose(method: Method, task: Callable[[int], tuple[nn.Module, Data, Data, str]], passes: int) -> float:
    """Return the setting with the least risk on a tenth of the training data, after the passes."""
    model, train, _, loss = task(0)
    held, inner = train.split(len(train) // 10, seeded(1))
    found = {}
    for setting in method.grid:
        training = method.solver(setting, passes).train(Problem(model, inner, loss=loss), generator=seeded(0))
        risk = Problem(training.model, held, loss=loss).risk()
        found[setting] = math.inf if training.outcome.diverged or math.isnan(risk) else risk
    return min(method.grid, key=lambda setting: found[setting])


def middle(values: Sequence[float]) -> str:
    spread = f" ({statistics.stdev(values):.2g})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"


def compare(name: str, passes: int, seeds: int, methods: Sequence[Method], budget: float | None) -> None:
    task = TASKS[name]
    settings = {method.name: choose(method, task, passes) for method in methods}

    def train(method: Method, setting: float, seed: int, number: int) -> tuple[Training, float]:
        model, data, test, loss = task(seed)
        solver = method.solver(setting, number)
        training = solver.train(Problem(model, data, loss=loss), generator=seeded(seed))
        return training, Problem(training.model, test, loss=loss).risk()

    runs = {
        method.name: [train(method, settings[method.name], seed, passes) for seed in range(seeds)] for method in methods
    }
    seconds = {key: statistics.mean(training.seconds for training, _ in found) for key, found in runs.items()}
    budget = budget or max(seconds.values())
    print(f"\n{name}: {seeds} seeds, {passes} passes in minibatches of 100, {torch.get_num_threads()} threads; means")
    print("(standard deviations over seeds)\n")
    print(
        "| method | setting of its grid | seconds | risk at equal passes | its test risk | passes at equal seconds | "
        "setting for them | best risk | its test risk |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for method in methods:
        found = runs[method.name]
        number = min(LONGEST, max(passes, round(passes * budget / seconds[method.name])))
        # More passes favour another setting: it is chosen again for them.
        setting = settings[method.name] if number == passes else choose(method, task, number)
        again = found if number == passes else [train(method, setting, seed, number) for seed in range(seeds)]
        grid = ", ".join(f"{value:g}" for value in method.grid)
        print(
            f"| {method.name} | {method.setting} {settings[method.name]:g} ({grid}) | {seconds[method.name]:.2f} | "
            f"{middle([float(training.history['loss'][-1]) for training, _ in found])} | "
            f"{middle([risk for _, risk in found])} | {number} | {setting:g} | "
            f"{middle([float(training.history['loss'].min()) for training, _ in again])} | "
            f"{middle([risk for _, risk in again])} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("all", *TASKS), default="all")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--method", choices=[method.name for method in METHODS], help="one row alone")
    parser.add_argument("--budget", type=float, help="seconds of the slowest method, in place of those measured")
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    passes, seeds = (20, 3) if given.full else (given.passes, given.seeds)
    for name in TASKS if given.task == "all" else (given.task,):
        methods = [method for method in METHODS if given.method in (None, method.name)]
        compare(name, passes, seeds, methods, given.budget)


if __name__ == "__main__":
    main()
