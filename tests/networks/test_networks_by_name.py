"""Networks by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from whydeep.core import InputError
from whydeep.networks import by_name


def made(spec: str, input_shape: tuple[int, ...] = (1, 8, 8), outputs: int = 10) -> nn.Sequential:
    factory = by_name(spec, input_shape=input_shape, outputs=outputs).factory
    assert factory is not None
    network = factory()
    assert isinstance(network, nn.Sequential)
    return network


def widths(network: nn.Sequential) -> list[tuple[int, int]]:
    return [(layer.in_features, layer.out_features) for layer in network if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("mlp", [(64, 100), (100, 100), (100, 10)]),
        ("mlp:100,100", [(64, 100), (100, 100), (100, 10)]),
        ("mlp:7", [(64, 7), (7, 10)]),
        ("linear", [(64, 10)]),
    ],
)
def test_widths(spec: str, expected: list[tuple[int, int]]) -> None:
    assert widths(made(spec)) == expected


def test_options_reach_the_network() -> None:
    network = made("mlp:2000?activation=sigmoid&init=xavier&gain=4")
    first = network[1]
    assert isinstance(network[2], nn.Sigmoid)
    assert isinstance(first, nn.Linear)
    assert (first.bias == 0).all()
    # 128,000 normal weights: the relative standard error of their standard deviation is 1/sqrt(2 * 128000) = 0.2 %.
    assert float(first.weight.detach().std()) == pytest.approx(4 * (2 / 2064) ** 0.5, rel=0.008)


def test_orthogonal_networks_can_be_made() -> None:
    first = made("mlp:64?init=orthogonal&gain=2")[1]
    assert isinstance(first, nn.Linear)
    torch.testing.assert_close(first.weight @ first.weight.T, 4 * torch.eye(64), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("spec", "norms"), [("cnn", 0), ("cnn:4,5,6?batch_norm=yes", 3), ("cnn:4?batch_norm=no", 0)])
def test_cnn(spec: str, norms: int) -> None:
    network = made(spec, (3, 9, 7), 4)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network) == norms
    assert network.eval()(torch.zeros(2, 3, 9, 7)).shape == (2, 4)


def test_each_call_gives_another_network_on_the_default_device() -> None:
    factory = by_name("mlp", input_shape=(4,), outputs=2).factory
    assert factory is not None
    first, second = (next(factory().parameters()) for _ in range(2))
    assert first.device.type == "cpu"
    assert not torch.equal(first, second)


def test_naming_draws_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    by_name("mlp:10?init=xavier", input_shape=(4,), outputs=2)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet", "no network 'resnet'; give cnn, linear, mlp, or FILE.py:OBJECT"),
        ("", "no network ''; give cnn"),
        ("mlp:", "widths in 'mlp:' are ''; give whole numbers"),
        ("mlp:10,-3", "give whole numbers from 1"),
        ("mlp:10,x", "give whole numbers from 1"),
        ("linear:3", "gives widths to linear; write linear alone"),
        ("linear?init=he", "which it has not; it has no options"),
        ("mlp:3?depth=2", "'depth=2' which it has not; it has activation, init, gain"),
        ("mlp:3?gain", "'gain' without a value"),
        ("mlp:3?gain=2&gain=3", "'gain=3' twice"),
        ("mlp:3?gain=-1", "gain=-1 for mlp; give a number > 0"),
        ("mlp:3?gain=inf", "give a number > 0"),
        ("mlp:3?activation=step", "activation=step for mlp; give identity, leaky_relu, relu, sigmoid"),
        ("mlp:3?init=zero", "init=zero for mlp; give default, he, orthogonal, xavier"),
        ("cnn:3?batch_norm=maybe", "batch_norm=maybe for cnn; give yes, no"),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_valid(spec: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        made(spec)
    assert message in str(caught.value)


def test_samples_that_do_not_fit_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="needs images"):
        by_name("cnn", input_shape=(64,), outputs=10)
