"""The capacity table on the embedded digits, beside the values of an earlier prototype and of the published formulas.

    .venv/bin/python benchmarks/bench_capacity.py [--seeds 1] [--full]

Network 64-64-10 with ReLU and biases (4,810 parameters) on 1,347 digits, as the prototype had. `published` is the
formula with the paper's constants as recalled, on the same trained network at its best margin, biases left out and no
union bound paid: 2 K/gamma for K scores where the paper is for one. --full: three seeds, and widths 16 to 1,024.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from sklearn.datasets import load_digits

import whydeep as wd
from whydeep.generalization.capacity.growth_function import recalled_vc_dimension
from whydeep.generalization.capacity.table import CapacityTable

PROTOTYPE = {
    "VC, growth function": 12.9,
    "covering, counting parameters": None,
    "covering, spectral norms": 1.6e4,
    "Rademacher, Frobenius norms, 2^L": 2.6e2,
    "Rademacher, Frobenius norms, sqrt L": 2.5e3,
    "Rademacher, l1 norms": None,
    "PAC-Bayes, spectral norms": 6.9e3,
}
WHY = {
    "VC, growth function": "the growth function of the ten scores' comparisons itself, instead of the dimension of one",
    "covering, counting parameters": "not in the prototype",
    "covering, spectral norms": "biases, and union bounds over norms and margins, are paid here",
    "Rademacher, Frobenius norms, 2^L": "the prototype had one score; here K = 10, biases and grids are paid",
    "Rademacher, Frobenius norms, sqrt L": "ln K in the root for a factor K, biases paid; prototype at another margin",
    "Rademacher, l1 norms": "not in the prototype",
    "PAC-Bayes, spectral norms": "15.4 and the tighter PAC-Bayes form instead of 42; biases paid",
}


def published(table: CapacityTable, name: str, train_error: float) -> float | None:
    """The formula of the paper with recalled constants, without its margin loss; None where there is none."""
    chain, row = table.chain, table[name]
    n, links, depth = row.samples, chain.links, len(table.chain.links)
    frobenius, spectral = (math.prod(getattr(link, norm) for link in links) for norm in ("frobenius", "spectral"))
    if name.startswith("VC"):
        d = recalled_vc_dimension(chain)
        return train_error + math.sqrt(2 * d * math.log(math.e * max(n, d) / d) / n)
    gamma = row.margin or 1.0
    scale = 4 * links[-1].units / gamma * chain.root_mean_square * frobenius / math.sqrt(n)
    if "2^L" in name:
        return scale * 2 ** (depth - 0.5)
    if "sqrt L" in name:
        return scale * (math.sqrt(2 * math.log(2) * depth) + 1)
    if name.startswith("PAC"):
        h = max(max(link.inputs, link.units) for link in links)
        sigma = gamma / (42 * depth * chain.largest_norm * spectral ** ((depth - 1) / depth))
        sigma /= math.sqrt(h * math.log(4 * h * depth))
        ratio = sum((link.frobenius / link.spectral) ** 2 for link in links)
        divergence = spectral ** (2 / depth) * ratio / (2 * sigma**2)
        return 4 * math.sqrt((divergence + math.log(6 * n / 0.05)) / (n - 1))
    return None


def digits() -> tuple[wd.Data, wd.Data]:
    raw = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x = (torch.from_numpy(raw.images).float() / 16).unsqueeze(1)[order]
    y = torch.from_numpy(raw.target).long()[order]
    return tuple(wd.Data(x[s], y[s], "digits", classes=10) for s in (slice(1347), slice(1347, None)))  # type: ignore[return-value]


def trained(width: int, seed: int, train: wd.Data) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = wd.networks.mlp((64, width, 10), init="he", generator=generator)
    solver = wd.optimization.Backprop(torch.optim.SGD, lr=0.1, epochs=100, options={"momentum": 0.9})
    return solver.train(wd.Problem(model, train), generator=generator).model


def error(model: torch.nn.Module, data: wd.Data) -> float:
    with torch.no_grad():
        return float((model(data.x).argmax(1) != data.targets).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    train, test = digits()
    for seed in range(3 if options.full else options.seeds):
        model = trained(64, seed, train)
        began = time.perf_counter()
        table = wd.generalization.capacity_table(model, train)
        seconds = time.perf_counter() - began
        inside, outside = error(model, train), error(model, test)
        print(f"seed {seed}: training error {inside:.4f}, test error {outside:.4f}; table in {seconds:.2f} s")
        print(
            f"VC dimension at most {table.vc_dimension:,}; by the recalled formula {table.recalled_vc_dimension:,.0f}"
        )
        print("| bound | here | needs n | published, recalled | prototype | why they differ |")
        print("| --- | --- | --- | --- | --- | --- |")
        for row in table:
            other = published(table, row.name, inside)
            cells = ["" if value is None else f"{value:.3g}" for value in (other, PROTOTYPE[row.name])]
            shown = f"{row.value:.3g} | {row.samples_needed:.2g} | {cells[0]} | {cells[1]} | {WHY[row.name]}"
            print(f"| {row.name} | {shown} |")
    print("\nBig model should fail:\n| width | VC | spectral | test error |\n| --- | --- | --- | --- |")
    for width in (16, 64, 256, 1_024) if options.full else (16, 256):
        model = trained(width, 0, train)
        table = wd.generalization.capacity_table(model, train)
        values = (table["VC, growth function"].value, table["covering, spectral norms"].value)
        print(f"| {width} | {values[0]:.3g} | {values[1]:.3g} | {error(model, test):.4f} |")


if __name__ == "__main__":
    main()
