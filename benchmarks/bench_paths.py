"""Paths between two networks trained on the digits from different starts: barrier, length and time of every method.

    .venv/bin/python benchmarks/bench_paths.py [--hidden 30 100 100-100-100] [--pairs 3] [--methods ..] [--full]

Networks of rectified units on 64 pixels, --hidden the widths of their hidden layers, trained by Adam on the
cross-entropy of 1,437 images. Barrier: the largest excess of the training risk over the straight interpolation of the
ends, mean over the pairs; highest: the largest risk on the path over the risk of the worse end, 1 where the path never
rises above it; certified: pairs in which that is proved for all positions (convex and constant legs), not only looked
at. Length in straight distances. Seconds of one processor, the profile included. --full: widths 10, 30, 100, 300 and
ten pairs, and three hidden layers of 100.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

import whydeep as wd
from whydeep.networks import mlp
from whydeep.optimization import Backprop
from whydeep.optimization.landscape import Path, path

METHODS: dict[str, dict[str, Any]] = {
    "line": {},
    "permute": {},
    "permute, by activations": {"by": "activations"},
    "bezier": {},
    "dynamic_string": {"level": 1.5},  # in risks of the worse end
    "relu": {},
}


def ends(hidden: list[int], pair: int, train: wd.Data) -> tuple[wd.Problem, torch.nn.Module]:
    nets = []
    for seed in (2 * pair, 2 * pair + 1):
        generator = torch.Generator().manual_seed(seed)
        start = mlp((64, *hidden, 10), init="he", generator=generator)
        solver = Backprop(torch.optim.Adam, lr=2e-3, epochs=20)
        nets.append(solver.train(wd.Problem(start, train), generator=generator).model)
    return wd.Problem(nets[0], train), nets[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", nargs="+", default=["30", "100"], help="widths of the layers, joined by -")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first pair, to run in pieces")
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    shapes = [[int(width) for width in hidden.split("-")] for hidden in options.hidden]
    pairs = options.pairs
    if options.full:
        shapes, pairs = [[10], [30], [100], [300], [100, 100, 100]], 10
    train, _ = wd.data.load("digits")
    print("| hidden | method | barrier | highest / worse end | certified | length | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for hidden in shapes:
        both = [ends(hidden, pair, train) for pair in range(options.first, options.first + pairs)]
        for name in options.methods:
            if name == "relu" and len(hidden) > 1:
                continue
            settings = METHODS[name]
            found: list[tuple[Path, float, float]] = []
            for problem, other in both:
                worse = max(problem.risk(), problem.with_model(other).risk())
                chosen = settings | ({"level": settings["level"] * worse} if "level" in settings else {})
                began = time.process_time()
                one = path(problem, problem.model, other, method=name.partition(",")[0], **chosen)
                found.append((one, worse, time.process_time() - began))
            barrier = sum(one.barrier.value for one, _, _ in found) / pairs
            highest = max(one.profile.highest / worse for one, worse, _ in found)
            # 1e-5: risks in single precision.
            sure = sum(one.certified is not None and one.certified <= worse * (1 + 1e-5) for one, worse, _ in found)
            length = sum(one.length for one, _, _ in found) / pairs
            seconds = sum(spent for _, _, spent in found) / pairs
            shape = "-".join(map(str, hidden))
            numbers = f"{barrier:.4f} | {highest:.2f} | {sure} of {pairs} | {length:.2f} | {seconds:.1f}"
            print(f"| {shape} | {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
