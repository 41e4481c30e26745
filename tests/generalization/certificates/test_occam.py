from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import blobs, digits
from torch import nn

from whydeep.core import Data, InputError
from whydeep.generalization import binomial_tail_inverse, certify
from whydeep.generalization.certificates.occam import (
    DIMENSIONS,
    STEPS,
    occam_bound,
    occam_certificate,
    subspace,
    written,
)
from whydeep.generalization.certificates.prefix_code import decode, encode
from whydeep.generalization.risk import mistakes
from whydeep.networks import mlp
from whydeep.optimization import Backprop

SOLVER = Backprop(torch.optim.Adam, lr=0.03, epochs=10, batch_size=32)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.integers(-5000, 5000), max_size=30))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_was_written_is_read_and_nothing_beyond_it(integers: list[int]) -> None:
    bits = iter(encode(integers) + "0110")
    assert decode(bits, len(integers)) == integers
    assert "".join(bits) == "0110"


def test_the_code_is_a_prefix_code() -> None:
    # Kraft's sum over all sequences of two integers in a range is below 1, or delta would be overspent.
    words = [encode(pair) for pair in itertools.product(range(-40, 41), repeat=2)]
    assert sum(Fraction(1, 2 ** len(word)) for word in words) <= 1
    assert len(set(words)) == len(words)
    words.sort()
    assert not any(after.startswith(before) for before, after in itertools.pairwise(words))


def test_small_integers_take_few_bits() -> None:
    # All zero: four bits for the parameter and one each.
    assert len(encode([0] * 100)) == 104
    # Geometric with ratio 1/2 in |z|: the entropy is about 2.67 bits; Rice stays within half a bit of it.
    drawn = torch.distributions.Geometric(0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        size, sign = drawn.sample((4000,)).long(), 2 * torch.randint(2, (4000,)) - 1
    assert len(encode((size * sign).tolist())) / 4000 < 3.2


def test_a_code_that_ends_early_is_refused() -> None:
    with pytest.raises(ValueError, match="ends too early"):
        decode(iter("00001"), 3)


def test_the_bits_are_the_network_whose_mistakes_are_counted() -> None:
    train, test = digits(300)
    found = occam_certificate(mlp((64, 20, 10)), train, SOLVER, heldout=test, generator=random())
    space = subspace(mlp((64, 20, 10)), generator=torch.Generator().manual_seed(_first_seed(random())))
    bits = int(found.details["bits"])
    assert found.errors == int(mistakes(found.classifier, train).sum())
    assert found.bound == occam_bound(found.errors, 300, 0.05, bits)
    # The network lies on the lattice of the code: solve for its coordinates, write them, read them, compare.
    weights = torch.cat([value.detach().reshape(-1) for value in found.classifier.parameters()])
    size, step = int(found.details["dimensions"]), found.details["step"]
    moved = (weights - space.start) / (space.unit * space.sign)
    coordinates = torch.stack([moved[space.which % size == j].mean() for j in range(size)])
    code = written(coordinates, step)
    assert len(code) == bits
    again = space.read(code)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), found.classifier.parameters(), strict=True))
    assert found.baseline is not None
    assert found.baseline.errors == int(mistakes(found.classifier, test).sum())
    assert sum(found.terms.values()) == pytest.approx(found.bound)


def _first_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def test_start_and_subspace_know_nothing_of_the_given_weights() -> None:
    one, two = mlp((3, 5, 2), init="he", generator=random(1)), mlp((3, 5, 2), init="he", generator=random(2))
    first, second = (subspace(model, generator=random(3)) for model in (one, two))
    for name in ("start", "unit", "which", "sign"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert torch.isfinite(first.start).all()
    assert set(first.sign.tolist()) == {-1.0, 1.0}


def test_weights_that_no_layer_draws_are_refused() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    with pytest.raises(InputError, match="scale cannot be drawn anew"):
        subspace(Own(), generator=random())


def test_bound_pays_the_bits_on_both_sides_of_the_smallest_numbers() -> None:
    assert occam_bound(3, 100, 0.05, 0) == binomial_tail_inverse(3, 100, 0.05)
    assert occam_bound(3, 100, 0.05, 10) == binomial_tail_inverse(3, 100, 0.05 / 1024)
    values = [occam_bound(30, 2000, 0.05, bits) for bits in (900, 955, 960, 970, 1100)]
    assert values == sorted(values)
    # A mistake or none: (1 - p)^n = delta 2^-bits.
    assert occam_bound(0, 2000, 0.5, 999) == pytest.approx(-math.expm1(-1000 * math.log(2) / 2000), rel=1e-9)


def test_certify_takes_any_network_and_keeps_its_buffers() -> None:
    train, heldout = blobs(150), blobs(60)
    heldout = Data(heldout.x + 0.01, heldout.y, classes=3)
    model = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU(),
                          nn.Dropout(), nn.Flatten(), nn.Linear(48, 3))  # fmt: skip
    found = certify(model, heldout, method="occam", train=train, solver=SOLVER, candidates=2)
    assert found.n == 150
    assert not found.vacuous
    assert found.dominant in found.terms
    assert not bool(found.classifier[2].running_mean.any())
    assert found.baseline is not None
    assert found.baseline.n == 60
    assert found.details["dimensions"] in DIMENSIONS
    assert found.details["step"] in STEPS


def test_covers_the_best_of_all_networks_that_have_a_code() -> None:
    """Every pair of small integers is a classifier with fair coins for mistakes: the one of least bound is violated
    with probability at most delta = 0.3, while the same choice unpaid is violated nearly always."""
    words = [encode(pair) for pair in itertools.product(range(-4, 5), repeat=2)]
    bits = np.array([len(word) for word in words])
    runs, n, delta = 2000, 30, 0.3
    errors = np.random.default_rng(0).binomial(n, 0.5, size=(runs, len(words)))
    table = {b: np.array([occam_bound(k, n, delta, int(b)) for k in range(n + 1)]) for b in {*bits.tolist(), 0}}
    paid = np.stack([table[b][errors[:, j]] for j, b in enumerate(bits.tolist())], 1).min(1)
    unpaid = table[0][errors].min(1)
    # Four standard errors of a rate of 0.3 over 2000 runs are 0.041.
    assert float((paid < 0.5).mean()) <= 0.3 + 0.041
    assert float((unpaid < 0.5).mean()) > 0.99


def test_a_kept_buffer_is_in_the_notes() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))
    model.register_buffer("centre", torch.ones(3))
    solver = Backprop(torch.optim.Adam, lr=0.02, epochs=1)
    assert "centre" in occam_certificate(model, blobs(60), solver).notes[0]
