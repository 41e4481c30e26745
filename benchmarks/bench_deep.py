"""Deep sigmoid networks on the digits: full-batch ADMM, Adam and SGD from three starts, as they are and rescaled.

    .venv/bin/python benchmarks/bench_deep.py [--depths 10] [--starts default] [--seeds 3] [--sweeps 80] [--full]

Hidden layers of 100 units; the squared loss for ADMM, the cross-entropy for the others; 1,797 digits of scikit-learn in
a fixed order, the last 360 for the test, a tenth of the others held back (drawn by the seed): ADMM returns the iterate
with the least risk there. Starts: PyTorch's default, and Xavier with gains 1 and 4 ("xavier4" is right for sigmoids).
Rescaled: after `rescaled(spread=0.5)`, the same for everyone. ADMM: float32, everything else at its defaults; the
spread was chosen among 0.25, 0.5, 0.75 and 1 on held-back digits of seeds 0 to 2 at ten layers. Adam and SGD
(momentum 0.9): minibatches of 64, cosine schedule over as many passes as ADMM has sweeps, the step size from the
printed grid by the accuracy on the held-back tenth of the first seed. --full: depths 3, 6, 10, 20, all starts, ten
seeds, and 120 sweeps at twenty layers.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import cast

import torch
from sklearn.datasets import load_digits

import whydeep as wd
from whydeep.core.training import Training
from whydeep.networks import mlp
from whydeep.optimization import ADMM, Backprop
from whydeep.optimization.alternating.stochastic_admm.rescaled_start import rescaled

Problem, Data = wd.Problem, wd.Data
GRIDS = {"Adam": (1e-3, 3e-3, 1e-2), "SGD": (0.03, 0.1, 0.3)}
GAINS = {"xavier1": 1.0, "xavier4": 4.0}
SPREAD = 0.5


def digits() -> tuple[Data, Data]:
    raw = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(raw.images).float()[order] / 16
    y = torch.from_numpy(raw.target).long()[order]
    return Data(x[:-360], y[:-360], "digits", classes=10), Data(x[-360:], y[-360:], "digits", classes=10)


def network(depth: int, start: str, seed: int) -> torch.nn.Module:
    widths, generator = (64, *[100] * depth, 10), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # PyTorch's own start knows no other generator
        init = "default" if start == "default" else "xavier"
        gain = GAINS.get(start, 1.0)
        return cast(torch.nn.Module, mlp(widths, activation="sigmoid", init=init, gain=gain, generator=generator))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def accuracy(training: Training, data: Data) -> float:
    with torch.no_grad():
        return float((training.model(data.x).argmax(1) == data.targets).double().mean())


def row(depth: int, start: str, method: str, setting: str, runs: Sequence[Training], test: Data) -> str:
    reached = [accuracy(run, test) for run in runs]
    seconds = statistics.mean(run.seconds for run in runs)
    failed = sum(run.outcome.diverged or "taken back" in run.outcome.reason for run in runs)
    listed = " ".join(f"{value:.3f}"[1:] if value < 1 else "1.0" for value in reached)
    mean = statistics.mean(reached)
    return f"| {depth} | {start} | {method} | {setting} | {seconds:.1f} | {failed} | {mean:.3f} | {listed} |"


def back(name: str, lr: float, passes: int) -> Backprop:
    if name == "Adam":
        return Backprop(torch.optim.Adam, lr=lr, epochs=passes, batch_size=64, schedule="cosine")
    return Backprop(torch.optim.SGD, lr=lr, epochs=passes, batch_size=64, schedule="cosine", options={"momentum": 0.9})


def compare(depth: int, start: str, *, seeds: int, sweeps: int, train: Data, test: Data) -> None:
    for name in ("as given", "rescaled"):
        problems = [Problem(network(depth, start, seed), train, loss="squared") for seed in range(seeds)]
        spread = None if name == "as given" else SPREAD
        solver = ADMM(sweeps=sweeps, validation=0.1, spread=spread)
        runs = [solver.train(problem, generator=seeded(seed)) for seed, problem in enumerate(problems)]
        print(row(depth, f"{start}, {name}", "ADMM", f"{sweeps} sweeps", runs, test), flush=True)
        for rival, grid in GRIDS.items():
            parts = [train.split(round(0.1 * len(train)), seeded(seed)) for seed in range(seeds)]
            starts = [Problem(network(depth, start, seed), parts[seed][1]) for seed in range(seeds)]
            if spread is not None:
                starts = [rescaled(problem, spread=spread) for problem in starts]
            tried = {lr: back(rival, lr, sweeps).train(starts[0], generator=seeded(0)) for lr in grid}
            held = {lr: accuracy(training, parts[0][0]) for lr, training in tried.items()}
            best = max(grid, key=lambda lr: held[lr])
            others = [back(rival, best, sweeps).train(starts[s], generator=seeded(s)) for s in range(1, seeds)]
            setting = f"lr {best:g} (held back " + ", ".join(f"{lr:g}: {held[lr]:.3f}" for lr in grid) + ")"
            print(row(depth, f"{start}, {name}", rival, setting, [tried[best], *others], test), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, nargs="+", default=[10])
    parser.add_argument("--starts", choices=["default", *GAINS], nargs="+", default=["default"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sweeps", type=int, default=80)
    parser.add_argument("--full", action="store_true", help="depths 3, 6, 10, 20, all starts, ten seeds")
    options = parser.parse_args()
    if options.full:
        options.depths, options.starts, options.seeds = [3, 6, 10, 20], ["default", *GAINS], 10
    train, test = digits()
    print(f"64-L x 100-10 sigmoid, {len(train)} digits, {torch.get_num_threads()} threads; test accuracy")
    print("| hidden | start | method | setting | seconds | failures | mean | every seed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for depth in options.depths:
        sweeps = max(options.sweeps, 120) if depth >= 20 else options.sweeps
        for start in options.starts:
            compare(depth, start, seeds=options.seeds, sweeps=sweeps, train=train, test=test)


if __name__ == "__main__":
    main()
