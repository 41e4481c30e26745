"""SGLD: the cost of its step beside SGD and the peers, and what its path certifies on digits.

    .venv/bin/python benchmarks/bench_sgld.py [--seeds 5] [--rounds 60] [--full]

Steps: zero_grad, forward, backward and step of a network 784-256-256-10 (269,322 weights), batch 64, cross-entropy. All
optimizers take turns, five steps at a time, so that a busy moment of the machine meets all of them; the table has the
median of the rounds and its ratio to SGD's. `posteriors` and `devinterp` take part where they are installed. The noise
is drawn ahead by a second thread: without a second free core all ratios are larger, and only the least of the rounds
tells the step's cost from the machine's load.

Kept for the sums: one product for all small tensors of a group, and that of the gradient with itself before the noise
is waited for (least of 100 rounds, two shared cores: 1.19 times SGD, where a product for each tensor had 1.23). Tried
and not kept: drawing the next noise from the start of a step instead of its end (1.20); products and update tensor by
tensor (1.18 and 1.23 in two runs, against 1.19 and 1.29); blocks that stay in the cache (1.27 to 1.77: the calls cost
more than the memory saves).

Certificates: digits, 1,437 training images, network 64-128-10, delta .05, full batches, step .1, beta = n/4 in every
line; each pays for CANDIDATES settings (temperature, steps, widths, initial gain, the prior's share) that were tried on
these training images. 70 steps for the data-free prior, 150 for the prior that follows 1,000 of the images; the
classifier is the mean of the weights over the last half of the steps. --full: ten seeds and 200 rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import mean, median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import whydeep as wd
from whydeep.data.corruption import random_labels
from whydeep.generalization import Certificate, sgld_certificate

CANDIDATES = 60
Step = Callable[[], object]


def network() -> nn.Sequential:
    return wd.networks.mlp((784, 256, 256, 10), init="he", generator=torch.Generator().manual_seed(0))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(64, 784, generator=generator), torch.randint(10, (64,), generator=generator)


def with_optimizer(build: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> tuple[Step, Step]:
    """The whole step, and the optimizer's own part."""
    model, (x, y) = network(), batch()
    optimizer = build(list(model.parameters()))

    def whole() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()

    whole()
    return whole, optimizer.step


def posteriors_step() -> tuple[Step, Step]:
    import posteriors
    import torchopt  # noqa: F401  (it cannot do without)

    model, pair = network(), batch()
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}

    def log_posterior(values: dict[str, Tensor], both: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        output = torch.func.functional_call(model, values, (both[0],))
        return -cross_entropy(output, both[1]), torch.tensor([])

    transform = posteriors.sgmcmc.sgld.build(log_posterior, lr=1e-4, temperature=1e-6)
    state = transform.init(parameters)

    def whole() -> None:
        transform.update(state, pair, inplace=True)

    return whole, whole


def devinterp_step() -> tuple[Step, Step]:
    try:
        from devinterp.optim.sgld import SGLD
    except ImportError:
        from devinterp.optim import SGLD
    return with_optimizer(lambda values: SGLD(values, lr=1e-4, localization=0.0))


def runs() -> dict[str, tuple[Step, Step]]:
    SGLD = wd.optimization.SGLD
    found = {
        "torch.optim.SGD": with_optimizer(lambda values: torch.optim.SGD(values, 1e-4)),
        "SGLD": with_optimizer(lambda values: SGLD(values, 1e-4, beta=1e6)),
        "SGLD, all sums": with_optimizer(lambda values: SGLD(values, 1e-4, beta=1e6, accumulate=True)),
    }
    for name, build in (("posteriors", posteriors_step), ("devinterp", devinterp_step)):
        try:
            found[name] = build()
        except ImportError as fault:
            print(f"{name} does not take part: {fault}")
    return found


def seconds(step: Step, count: int = 5) -> float:
    began = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - began) / count


def steps_table(rounds: int) -> None:
    torch.manual_seed(0)
    competitors = runs()
    whole: dict[str, list[float]] = {name: [] for name in competitors}
    alone: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, (everything, own) in competitors.items():
            whole[name].append(seconds(everything))
            alone[name].append(seconds(own))
    print(f"\n{torch.get_num_threads()} threads, median of {rounds} rounds of 5 steps")
    print("| | whole step, ms | ratio | least, ms | ratio | its own part, ms |\n| --- | --- | --- | --- | --- | --- |")
    base, least = median(whole["torch.optim.SGD"]), min(whole["torch.optim.SGD"])
    for name in competitors:
        one, few = median(whole[name]), min(whole[name])
        own = "" if name == "posteriors" else f"{1e3 * median(alone[name]):.2f}"
        print(f"| {name} | {1e3 * one:.2f} | {one / base:.2f} | {1e3 * few:.2f} | {few / least:.2f} | {own} |")


def certificate(seed: int, *, steps: int, prior: int, random: bool) -> tuple[Certificate, float]:
    """The certificate of one run, and the classifier's error on the test images."""
    train, test = wd.data.load("digits", seed=0)
    generator = torch.Generator().manual_seed(seed)
    model = wd.networks.mlp((64, 128, 10), init="xavier", generator=generator)
    if random:
        train = random_labels(train, generator=generator)
    run = wd.optimization.langevin_run(
        wd.Problem(model, train),
        lr=0.1,
        beta=len(train) / 4,
        steps=steps,
        prior_samples=prior,
        generator=generator,
    )
    found = sgld_certificate(
        run.optimizer, run.average, train, unseen=run.unseen, candidates=CANDIDATES, heldout=None if random else test
    )
    chosen = found.data_prior if prior else found.single_run
    assert chosen is not None
    tested = chosen.baseline.error if chosen.baseline is not None else float("nan")
    return chosen, tested


def certificates_table(seeds: int) -> None:
    print(f"\ndigits, {seeds} seeds, delta .05, beta = n/4, ln({CANDIDATES}) paid")
    print("| prior | labels | error counted | nats / n | certificate, mean | worst | test error | goal |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    lines = (
        ("data-free, single run", 70, 0, False, "<= .50"),
        ("follows 1,000 images", 150, 1000, False, "<= .25"),
        ("data-free, single run", 70, 0, True, ">= .9"),
        ("follows 1,000 images", 150, 1000, True, ">= .9"),
    )
    for name, steps, prior, random, goal in lines:
        found = [certificate(seed, steps=steps, prior=prior, random=random) for seed in range(seeds)]
        bounds = [one.bound for one, _ in found]
        worst = min(bounds) if random else max(bounds)
        print(
            f"| {name} | {'random' if random else 'true'} | {mean(one.error for one, _ in found):.3f} "
            f"| {mean(one.details['nats / n'] for one, _ in found):.3f} | {mean(bounds):.3f} | {worst:.3f} "
            f"| {'' if random else f'{mean(tested for _, tested in found):.3f}'} | {goal} |"
        )
    sample, _ = certificate(0, steps=70, prior=0, random=False)
    if sample.baseline is not None:
        print(f"beside it, seed 0, from 360 held-out images: {sample.baseline.bound:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--full", action="store_true", help="ten seeds, 200 rounds")
    options = parser.parse_args()
    steps_table(200 if options.full else options.rounds)
    certificates_table(10 if options.full else options.seeds)


if __name__ == "__main__":
    main()
