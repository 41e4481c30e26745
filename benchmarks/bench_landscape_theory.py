"""The landscape's theory against its published and its exact values.

    .venv/bin/python benchmarks/bench_landscape_theory.py [--only linear index students saddles search] [--full]
    .venv/bin/python benchmarks/bench_landscape_theory.py --only students --k 13 14 --starts 300 [--more 2]

linear: every critical point of linear networks, risk and index against the dense Hessian. index: Pennington and Bahri
by drawn matrices of size 600 (--full: 1,200). students: the share of random starts at which a ReLU student ends in a
poor minimum, beside the recalled table of Safran and Shamir, with the binomial interval of that table at this number
of starts (100 for k <= 10; --full: 1,000 for k <= 12, 300 beyond, and one or two units more; --k, --starts: a part of
them, --more: so many units more than the teacher has). saddles: the band of the spin glass. search: critical points of
a real network, index measured and foretold.
Seconds are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from scipy import stats

import whydeep as wd
from whydeep.optimization.landscape import index_against_energy
from whydeep.optimization.landscape.solvable import linear_networks, pennington_bahri, spin_glass
from whydeep.optimization.landscape.solvable import teacher_student as students

PARTS = ("linear", "index", "students", "saddles", "search")


def linear(_full: bool) -> None:
    print("\n| linear network | points | largest relative error of the risk | largest gradient | index exact |")
    print("| --- | --- | --- | --- | --- |")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    y = x @ y + 0.5 * torch.randn(40, 4, generator=generator, dtype=torch.float64)
    for width, depth in ((2, 2), (3, 2), (4, 2), (6, 2), (4, 3), (4, 4)):
        errors, gradients, exact = [], [], 0
        points = linear_networks.critical_points(x, y, width, depth=depth)
        for point in points:
            shapes = [weight.shape for weight in point.weights]

            def risk(vector: torch.Tensor, shapes: list[torch.Size] = shapes) -> torch.Tensor:
                pieces = torch.split(vector, [shape.numel() for shape in shapes])
                return linear_networks.risk([p.view(s) for p, s in zip(pieces, shapes, strict=True)], x, y)

            vector = torch.cat([weight.reshape(-1) for weight in point.weights])
            values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(risk, vector, vectorize=True))
            errors.append(abs(float(risk(vector)) / point.risk - 1))
            gradients.append(float(torch.func.grad(risk)(vector).norm()))
            exact += int((values < -1e-8 * values.abs().max()).sum()) == point.index
        row = f"| 5-{'-'.join([str(width)] * (depth - 1))}-4 | {len(points)} | {max(errors):.0e} | {max(gradients):.0e}"
        print(f"{row} | {exact} of {len(points)} |", flush=True)


def index(full: bool) -> None:
    size = 1200 if full else 600
    print(f"\n| form, phi = .25, size {size} | eps/eps_c | index | drawn | difference | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for form in pennington_bahri.FORMS:
        for ratio in (0.8, 1.5, 3.0, 11.5):
            began = time.process_time()
            eps = ratio * pennington_bahri.critical_energy(0.25, form=form)
            generator = torch.Generator().manual_seed(0)
            values = pennington_bahri.sample(0.25, eps, 4 * size, generator=generator, form=form)
            drawn, exact = float((values < 0).double().mean()), pennington_bahri.index(0.25, eps, form=form)
            seconds = time.process_time() - began
            print(
                f"| {form} | {ratio:g} | {exact:.4f} | {drawn:.4f} | {drawn - exact:+.4f} | {seconds:.1f} |", flush=True
            )


def student_rates(full: bool, chosen: list[tuple[int, int, int]] | None = None, seed: int = 0) -> None:
    print(
        "\n| k | n | starts | poor | unfinished | share | table | 95 % of the table | inside | least risk | seconds |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = [(k, k, 100) for k in (6, 8, 10)]
    if full:
        rows = [(k, k, 1000) for k in range(6, 13)] + [(k, k, 300) for k in range(13, 21)]
        rows += [(10, 11, 300), (10, 12, 300), (15, 16, 100), (15, 17, 100), (20, 21, 100), (20, 22, 100)]
    for k, n, starts in chosen or rows:
        began = time.process_time()
        drawn = students.xavier(starts, n, k, generator=torch.Generator().manual_seed(seed))
        ended = students.descend(drawn, torch.eye(k, dtype=torch.float64))
        poor = int(ended.poor.sum())
        table, interval, inside = "", "", ""
        if n == k:
            low, high = stats.binom.ppf([0.025, 0.975], starts, students.PUBLISHED[k])
            table, interval = f"{students.PUBLISHED[k]:.3f}", f"{low / starts:.3f} to {high / starts:.3f}"
            inside = "yes" if low <= poor <= high else "no"
        least = f"{float(ended.risk[ended.poor].min()):.4f}" if poor else ""
        seconds = time.process_time() - began
        counts = f"| {k} | {n} | {starts} | {poor} | {int(ended.unfinished.sum())} | {poor / starts:.3f}"
        print(f"{counts} | {table} | {interval} | {inside} | {least} | {seconds:.0f} |", flush=True)


def saddles(full: bool) -> None:
    edge, ground = spin_glass.threshold(3), spin_glass.critical_energy(0, 3)
    print(f"\n| spins, order 3: E_inf {edge:.4f}, E_0 {ground:.4f} | starts | lowest | mean | highest | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in (30, 60, 100) if full else (30, 60):
        began = time.process_time()
        couplings = spin_glass.couplings(size, 3, generator=torch.Generator().manual_seed(0))
        starts = torch.randn(100, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        starts = math.sqrt(size) * starts / starts.norm(dim=1, keepdim=True)
        values, _ = spin_glass.energy(couplings, spin_glass.descend(couplings, starts)[0])
        text = f"{float(values.min()):.4f} | {float(values.mean()):.4f} | {float(values.max()):.4f}"
        print(f"| {size} | 100 | {text} | {time.process_time() - began:.0f} |", flush=True)


def search(full: bool) -> None:
    """Saddles of many indices, asked for one by one, and points that a training passes or smaller networks inherit.

    A student of four tanh units on 100 samples of a noisy teacher of six: 26 weights, 200 residuals. Data that the
    network could fit exactly are left out: there saturated units run off to infinity, where the gradient vanishes
    without a critical point.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 3, generator=generator, dtype=torch.float64)
    teacher = wd.networks.mlp((3, 6, 2), activation="tanh", init="xavier", generator=generator).double()
    with torch.no_grad():
        for value in teacher.parameters():
            value.mul_(1.5)
        y = teacher(x)
    y = y / y.std() + 0.3 * torch.randn(100, 2, generator=generator, dtype=torch.float64)
    data = wd.Data(x, y)
    units = 4

    def start(seed: int, width: int = units) -> wd.Problem:
        draw = torch.Generator().manual_seed(seed)
        model = wd.networks.mlp((3, width, 2), activation="tanh", init="xavier", generator=draw).double()
        return wd.Problem(model, data, loss="squared")

    problem = start(0)
    asked, on_the_way, inherited = [], [], []
    for seed in range(6 if full else 2):
        asked.append(start(seed).vector())
        for steps in (30, 300):
            solver = wd.optimization.Backprop(lr=1e-2, steps=steps, batch_size=None)
            on_the_way.append(start(seed).with_model(solver.train(start(seed)).model).vector())
        for few in range(1, units):
            small = wd.optimization.SaddleFreeNewton(steps=200, tolerance=1e-9).train(start(seed, few)).model
            whole = start(0).model
            with torch.no_grad():
                for value in whole.parameters():
                    value.zero_()
                whole[1].weight[:few], whole[1].bias[:few] = small[1].weight, small[1].bias
                whole[3].weight[:, :few], whole[3].bias[:] = small[3].weight, small[3].bias
            inherited.append(start(0).with_model(whole).vector())
    searches = (
        ("asked for index 0 to 8", asked, range(9)),
        ("on the way of a training, no index asked for", on_the_way, (None,)),
        ("minima of fewer units, no index asked for", inherited, (None,)),
    )
    for name, starts, indices in searches:
        began = time.process_time()
        seen = index_against_energy(problem, starts, indices=tuple(indices), most=400)
        print(f"\n{name}, phi = {seen.phi:.2f}: {seen.sentence} Verdict: {seen.verdict}.")
        if seen.correlation is not None:
            print(f"Chance of this correlation among unrelated ranks: {seen.correlation[1]:.1e}.")
        if seen.points:
            print("\n| energy | index | random matrices | eps |\n| --- | --- | --- | --- |")
        for point in seen.distinct:
            print(f"| {point.energy:.4f} | {point.index:.3f} | {point.foretold:.3f} | {point.eps:.3g} |")
        print(f"\n{time.process_time() - began:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--k", type=int, nargs="+")
    parser.add_argument("--starts", type=int, default=300)
    parser.add_argument("--more", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.k:
        student_rates(False, [(k, k + options.more, options.starts) for k in options.k], options.seed)
        return
    parts = {"linear": linear, "index": index, "students": student_rates, "saddles": saddles, "search": search}
    for name in options.only:
        parts[name](options.full)


if __name__ == "__main__":
    main()
