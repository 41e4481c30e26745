"""The multilayer perceptron, the linear network, the small cnn, and normalisation in front of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from whydeep.core import InputError, global_seed
from whydeep.networks import cnn, linear, mlp, normalised


def weights(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_mlp_is_what_its_formula_says() -> None:
    network = mlp((4, 3, 2), activation="tanh").double()
    first, last = weights(network)
    x = torch.randn(5, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.tanh(x.reshape(5, 4) @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)


# 300 x 200 = 60,000 weights: the relative standard error of the standard deviation is 1/sqrt(120000) = 0.29 %.
@pytest.mark.parametrize(
    ("init", "std"), [("xavier", (2 / 500) ** 0.5), ("he", (2 / 200) ** 0.5), ("orthogonal", (1 / 300) ** 0.5)]
)
def test_initial_weights_have_the_spread_of_their_formula(init: str, std: float) -> None:
    network = mlp((200, 300, 300), init=init, gain=3.0, generator=torch.Generator().manual_seed(0))
    first, last = weights(network)
    assert float(first.weight.detach().square().mean().sqrt()) == pytest.approx(3 * std, rel=0.012)
    assert (first.bias == 0).all()
    scale = {"xavier": (2 / 600) ** 0.5, "he": (2 / 300) ** 0.5, "orthogonal": (1 / 300) ** 0.5}[init]
    # No activation follows the last layer, so it has gain 1.
    assert float(last.weight.detach().square().mean().sqrt()) == pytest.approx(scale, rel=0.012)


def test_orthogonal_rows() -> None:
    first = weights(mlp((20, 10, 2), init="orthogonal", gain=2.0, generator=torch.Generator().manual_seed(0)))[0]
    torch.testing.assert_close(first.weight @ first.weight.T, 4 * torch.eye(10), rtol=0, atol=1e-5)


@pytest.mark.parametrize("init", ["default", "he"])
def test_a_generator_or_the_global_seed_decides(init: str) -> None:
    def drawn(seed: int) -> torch.Tensor:
        with global_seed(torch.Generator().manual_seed(seed)):
            return weights(mlp((3, 4, 2), init=init))[0].weight

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_width_one_and_no_hidden_layer() -> None:
    assert mlp((1, 1, 1))(torch.zeros(2, 1)).shape == (2, 1)
    assert len(weights(mlp((3, 2)))) == 1
    assert linear(6, 2)(torch.zeros(4, 2, 3)).shape == (4, 2)


@pytest.mark.parametrize(
    ("widths", "options", "message"),
    [
        ((3,), {}, "widths are"),
        ((3, 0, 2), {}, "each at least 1"),
        ((3, 2), {"activation": "step"}, "unknown activation"),
        ((3, 2), {"init": "zero"}, "unknown init"),
    ],
)
def test_mlp_refuses(widths: tuple[int, ...], options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mlp(widths, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 8), (2, 9, 7)])
def test_cnn_takes_any_image(shape: tuple[int, int, int]) -> None:
    network = cnn(shape, 4, channels=(2, 3), batch_norm=True).eval()
    assert network(torch.zeros(2, *shape)).shape == (2, 4)


def test_cnn_needs_images() -> None:
    with pytest.raises(ValueError, match="needs images"):
        cnn((64,), 10)  # type: ignore[arg-type]


def test_normalisation_is_by_channel_and_the_rest_stays() -> None:
    inner = cnn((2, 4, 4), 3, channels=(2,)).eval()
    whole = normalised(inner, [0.5, 0.25], [2.0, 4.0])
    x = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    shifted = torch.stack([(x[:, 0] - 0.5) / 2, (x[:, 1] - 0.25) / 4], dim=1)
    torch.testing.assert_close(whole(x), inner(shifted))
    assert whole[1] is inner[0]


@pytest.mark.parametrize(("mean", "std"), [([], []), ([0.0], [1.0, 1.0]), ([0.0], [0.0]), ([0.0], [-1.0])])
def test_normalisation_refuses(mean: list[float], std: list[float]) -> None:
    with pytest.raises(InputError, match="do not fit"):
        normalised(nn.Identity(), mean, std)
