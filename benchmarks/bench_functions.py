"""Smooth functions to many digits: ten sweeps of ADMM beside 100 passes of Adam and SGD and 100 steps of L-BFGS.

    .venv/bin/python benchmarks/bench_functions.py [--function square] [--seeds 3] [--full]

square: x^2 on [-1, 1], two hidden sigmoid layers of 100. product: x1 x2 on [-1, 1]^2, two of 300. 1,000 points without
noise, mean squared error on them and on 1,000 others. The start is that of the authors' demonstrations for everyone:
normal weights of standard deviation 8 sqrt(2/units), at the output 8 sqrt(1/units), biases zero; Adam, SGD (momentum
0.9) and L-BFGS (strong Wolfe line search) also start from PyTorch's own weights, and each takes the better start and
step size of its printed grid by the error at the first seed, in float32 minibatches of 50 and full batches in float64.
ADMM: states in float64, ridge 1e-11 a sample (its default for regression). --full: both functions, five seeds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

import whydeep as wd
from whydeep.networks import mlp
from whydeep.optimization import ADMM, Backprop

Problem, Data = wd.Problem, wd.Data


@dataclass(frozen=True)
class Task:
    """A function on [-1, 1]^inputs and the widths of the network."""

    function: Callable[[Tensor], Tensor]
    widths: tuple[int, ...]

    def data(self, seed: int) -> Data:
        generator = torch.Generator().manual_seed(seed)
        x = 2 * torch.rand(1000, self.widths[0], generator=generator, dtype=torch.float64) - 1
        return Data(x, self.function(x))

    def network(self, start: str, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # PyTorch's own start knows no other generator
            model = mlp(self.widths, activation="sigmoid").double()
        linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
        for layer in linears if start == "gain 8" else []:
            size = 8 * math.sqrt((1 if layer is linears[-1] else 2) / layer.out_features)
            with torch.no_grad():
                noise = torch.randn(
                    layer.weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
                )
                layer.weight.copy_(size * noise)
                layer.bias.zero_()
        return cast(nn.Module, model)


TASKS = {
    "square": Task(lambda x: x.square(), (1, 100, 100, 1)),
    "product": Task(lambda x: x.prod(1, keepdim=True), (2, 300, 300, 1)),
}
Trained = tuple[nn.Module, float]
"""A network and the seconds of its training."""


def alternating(problem: Problem, size: float) -> Trained:
    training = ADMM(sweeps=10).train(problem)
    return training.model, training.seconds


def minibatches(optimizer: type[torch.optim.Optimizer], **options: float) -> Callable[[Problem, float], Trained]:
    def train(problem: Problem, size: float) -> Trained:
        assert isinstance(problem.train.x, Tensor)
        narrow = Data(problem.train.x.float(), problem.train.targets.float())
        solver = Backprop(optimizer, lr=size, epochs=100, batch_size=50, schedule="cosine", options=options)
        generator = torch.Generator().manual_seed(0)
        training = solver.train(Problem(problem.copy().float(), narrow, loss="squared"), generator=generator)
        return training.model.double(), training.seconds

    return train


def lbfgs(problem: Problem, size: float) -> Trained:
    model, began = problem.copy(), time.perf_counter()
    optimizer = torch.optim.LBFGS(
        model.parameters(), lr=size, max_iter=100, history_size=20, tolerance_grad=0, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        risk = (model(problem.train.x) - problem.train.targets).square().mean()
        risk.backward()
        return cast(Tensor, risk)

    optimizer.step(closure)
    return model, time.perf_counter() - began


METHODS: dict[str, tuple[Callable[[Problem, float], Trained], Sequence[str], Sequence[float]]] = {
    "ADMM, 10 sweeps": (alternating, ("gain 8",), (1.0,)),
    "Adam": (minibatches(torch.optim.Adam), ("gain 8", "default"), (1e-3, 3e-3, 1e-2)),
    "SGD": (minibatches(torch.optim.SGD, momentum=0.9), ("gain 8", "default"), (0.01, 0.1, 0.3)),
    "L-BFGS": (lbfgs, ("gain 8", "default"), (1.0,)),
}


def mse(model: nn.Module, data: Data) -> float:
    with torch.no_grad():
        return float((model(data.x) - data.targets).square().mean())


def row(task: Task, name: str, seeds: int) -> str:
    train, starts, sizes = METHODS[name]

    def once(start: str, size: float, seed: int) -> tuple[float, float, float]:
        data = task.data(seed)
        model, seconds = train(Problem(task.network(start, seed), data, loss="squared"), size)
        return mse(model, data), mse(model, task.data(seed + 1000)), seconds

    tried = {(start, size): once(start, size, 0) for start in starts for size in sizes}
    (start, size), first = min(tried.items(), key=lambda item: item[1][0] if item[1][0] >= 0 else math.inf)
    runs = [first, *(once(start, size, seed) for seed in range(1, seeds))]
    listed = " ".join(f"{error:.1e}" for error, _, _ in runs)
    others = " ".join(f"{error:.1e}" for _, error, _ in runs)
    grid = ", ".join(f"{s} {lr:g}: {found[0]:.0e}" for (s, lr), found in tried.items())
    return f"| {name} | {grid} | {statistics.mean(run[2] for run in runs):.2f} | {listed} | {others} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--function", choices=list(TASKS), default="square")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="both functions, five seeds")
    options = parser.parse_args()
    seeds = 5 if options.full else options.seeds
    for name in TASKS if options.full else [options.function]:
        print(f"\n{name}, {torch.get_num_threads()} threads; mean squared error of every seed\n")
        print("| method | start and step size: error at the first seed | seconds | on the points | on others |")
        print("| --- | --- | --- | --- | --- |")
        for method in METHODS:
            print(row(TASKS[name], method, seeds), flush=True)


if __name__ == "__main__":
    main()
