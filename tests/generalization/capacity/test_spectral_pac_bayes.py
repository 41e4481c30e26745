from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from whydeep.core import Data
from whydeep.generalization.capacity.chain import Chain, read_chain
from whydeep.generalization.capacity.spectral_pac_bayes import spectral_pac_bayes, why_no_spectral_pac_bayes
from whydeep.networks import cnn, mlp


def plain(d: int = 4, width: int = 6, classes: int = 3) -> tuple[nn.Sequential, Data, Chain]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(d, width, bias=False), nn.ReLU(), nn.Linear(width, classes, bias=False))
    model = model.double().requires_grad_(False)
    x = torch.randn(50, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = Data(x, torch.arange(50) % classes, classes=classes)
    return model, data, read_chain(model, data)


def sigma(chain: Chain, margin: float) -> float:
    """The proof's standard deviation, written out again for a network without biases and two layers."""
    depth, h = 2, 1 + max(max(link.inputs, link.units) for link in chain.links)
    size = 2.0 ** math.ceil(math.log2(chain.largest_norm))
    beta = math.sqrt(chain.links[0].spectral * chain.links[1].spectral)
    beta = 1.5 ** math.ceil(math.log(beta) / math.log(1.5))
    return margin / (4 * math.e * depth * size * beta * math.sqrt(2 * h * math.log(4 * h * depth)))


def test_the_divergence_by_hand() -> None:
    _, _, chain = plain()
    terms, _, _ = spectral_pac_bayes(chain)
    n, margin, nats = 10_000, 0.25, 3.0
    beta = math.sqrt(chain.links[0].spectral * chain.links[1].spectral)
    divergence = (
        sum((beta * link.frobenius / link.spectral) ** 2 for link in chain.links) / 2 / sigma(chain, margin) ** 2
    )
    inside = 2 * divergence + 2 * math.log(2) + math.log(2 * math.sqrt(n))
    complexity, confidence = terms(margin, n, nats)
    assert complexity == pytest.approx(math.sqrt(inside / 2 / n))
    share = nats + math.log(2)
    assert complexity + confidence == pytest.approx(math.sqrt((inside + share) / 2 / n) + share / n)


def test_weights_moved_by_the_posterior_move_the_scores_by_less_than_a_quarter_of_the_margin() -> None:
    """The event of the proof has probability at least 1/2; over 100 draws 28 or fewer would have probability 1e-5."""
    model, data, chain = plain()
    margin = 0.25
    beta = math.sqrt(chain.links[0].spectral * chain.links[1].spectral)
    first, last = (
        beta / link.spectral * layer.weight for link, layer in zip(chain.links, (model[0], model[2]), strict=True)
    )
    generator = torch.Generator().manual_seed(3)
    scores = model(data.x)
    torch.testing.assert_close(torch.relu(data.x @ first.T) @ last.T, scores)  # scaling leaves the function
    small, moved = 0, []
    for _ in range(100):
        u, v = (
            sigma(chain, margin) * torch.randn(w.shape, dtype=torch.float64, generator=generator) for w in (first, last)
        )
        moved.append(float((torch.relu(data.x @ (first + u).T) @ (last + v).T - scores).abs().max()))
        small += moved[-1] < margin / 4
    assert small > 28
    assert max(moved) > margin / 400  # the deviation is not absurdly small


def test_margins_enter_as_their_inverse_square_root_free() -> None:
    """At large divergence the complexity is 1/gamma, as KL is 1/gamma^2."""
    _, _, chain = plain()
    terms, _, _ = spectral_pac_bayes(chain)
    assert terms(1e-4, 100, 1.0)[0] == pytest.approx(10 * terms(1e-3, 100, 1.0)[0], rel=1e-4)


def test_biases_are_paid_for() -> None:
    model, data, chain = plain()
    biased = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    biased[0].weight.data, biased[2].weight.data = model[0].weight.data, model[2].weight.data
    biased[0].bias.data, biased[2].bias.data = torch.full((6,), 0.3).double(), torch.zeros(3).double()
    with_bias = spectral_pac_bayes(read_chain(biased, data))[0](0.1, 100, 1.0)[0]
    assert with_bias > spectral_pac_bayes(chain)[0](0.1, 100, 1.0)[0]


def test_a_network_of_zeros_and_few_samples() -> None:
    model, data, _ = plain()
    model[2].weight.data.zero_()
    terms, _, _ = spectral_pac_bayes(read_chain(model, data))
    assert terms(0.5, 3, 1.0)[0] == pytest.approx(math.sqrt((2 * math.log(2) + math.log(4)) / 6))


def test_who_is_refused() -> None:
    _, data, _ = plain()
    chain = read_chain(mlp((4, 5, 3), activation="tanh").double(), data)
    assert "Tanh" in (why_no_spectral_pac_bayes(chain) or "")
    images = Data(torch.rand(4, 1, 8, 8).double(), torch.arange(4) % 2, classes=2)
    assert why_no_spectral_pac_bayes(read_chain(cnn((1, 8, 8), 2, channels=(2, 3)).double(), images)) is None
