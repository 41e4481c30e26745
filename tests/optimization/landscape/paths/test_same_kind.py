"""Networks of the same shapes that compute something else are no ends of a path."""

from __future__ import annotations

import copy

import pytest
import torch
from problems import blobs, small_problem
from torch import Tensor, nn

from whydeep.core import InputError, Problem
from whydeep.optimization.landscape.paths.path import path, straight
from whydeep.optimization.landscape.paths.permutation import align
from whydeep.optimization.landscape.paths.same_kind import check_same_kind


def two_layers(activation: nn.Module, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 6), activation, nn.Linear(6, 3)).double()


def test_a_network_of_sigmoids_is_no_end_for_one_of_rectified_units() -> None:
    data = blobs(dtype=torch.float64)
    rectified, sigmoid = two_layers(nn.ReLU()), two_layers(nn.Sigmoid(), 1)
    problem = Problem(rectified, data)
    message = r"layer 1 is ReLU\(\) in the first and Sigmoid\(\) in the second; give two networks of one kind"
    for method in ("line", "permute", "bezier", "dynamic_string", "relu"):
        with pytest.raises(InputError, match=message):
            path(problem, rectified, sigmoid, method=method)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        straight(problem, sigmoid)
    with pytest.raises(InputError, match=r"layer 1 is Sigmoid\(\) in the first and ReLU\(\) in the second"):
        align(rectified, sigmoid, data)
    with pytest.raises(InputError, match=message):  # neither end is the problem's
        path(problem, sigmoid, two_layers(nn.Sigmoid(), 2))


class Heads(nn.Module):
    """Attention of a given number of heads, which its weights do not show."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0].mean(1)


class Sine(nn.Module):
    """A function that is written in the forward pass, with no setting that shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).sin()


class Cosine(Sine):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).cos()


def test_settings_are_compared_too() -> None:
    data = blobs(dtype=torch.float64)
    with pytest.raises(InputError, match=r"layer 1 has negative_slope=0.1 in the first and 0.2 in the second"):
        check_same_kind(two_layers(nn.LeakyReLU(0.1)), two_layers(nn.LeakyReLU(0.2)), data)
    with pytest.raises(InputError, match=r"layer 1 has approximate=none in the first and tanh in the second"):
        check_same_kind(two_layers(nn.GELU()), two_layers(nn.GELU(approximate="tanh")), data)
    sequences = blobs(40, 12)
    sequences = type(sequences)(sequences.x.reshape(-1, 3, 4), sequences.y, classes=3)
    with pytest.raises(InputError, match=r"layer attention has num_heads=2 in the first and 4 in the second"):
        check_same_kind(Heads(2), Heads(4), sequences)
    with pytest.raises(InputError, match="the network is Sine in the first and Cosine in the second"):
        check_same_kind(Sine(), Cosine(), blobs())


def test_what_leaves_the_function_as_it_is_may_differ() -> None:
    data = blobs(dtype=torch.float64)
    first = nn.Sequential(*two_layers(nn.ReLU()), nn.Dropout(0.1)).double()
    second = nn.Sequential(*two_layers(nn.ReLU(inplace=True), 1), nn.Dropout(0.7)).double()
    state = torch.random.get_rng_state()
    check_same_kind(first, second, data)
    check_same_kind(first, copy.deepcopy(second).float(), data)  # its weights are what is asked for
    assert torch.equal(torch.random.get_rng_state(), state)
    assert second.training
    assert second[0].weight.dtype == torch.float64


def test_the_ends_own_risks_are_told_where_batch_norm_takes_its_statistics_anew() -> None:
    data = blobs(dtype=torch.float64)

    def net(seed: int) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
        model(data.x)  # a tenth of the way to the statistics of the data
        return model

    a, b = net(0), net(1)
    problem = Problem(a, data)
    for held_out in (data, blobs(30, dtype=torch.float64)):
        found = path(problem, a, b, points=3, refinements=0, data=held_out)
        own = [problem.with_model(end).risk(held_out) for end in (a, b)]
        assert f"with their own statistics the networks have {own[0]:.3g} and {own[1]:.3g}" in found.remark
        assert f"{float(found.profile.risk[0]):.3g} and {float(found.profile.risk[-1]):.3g}; with" in found.remark
    kept = path(problem, a, b, points=3, refinements=0, recompute_statistics=False)
    assert kept.remark == ""
    assert float(kept.profile.risk[-1]) == pytest.approx(problem.with_model(b).risk(), rel=1e-12)
    assert path(small_problem(), small_problem().model, small_problem().model).remark == ""
