from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import blobs, digits
from torch import nn

from whydeep.core import InputError
from whydeep.networks import mlp
from whydeep.networks.cnn import cnn
from whydeep.representation.filters import first_filters, neighbour_correlation, pictures, smoothness_p_values


def test_filters_are_the_weights_of_the_layer_that_runs_first() -> None:
    data = digits()[0]
    model = mlp((64, 5, 10))
    assert torch.equal(first_filters(model, data), model[1].weight.detach().reshape(5, 1, 8, 8))
    network = cnn((1, 8, 8), 10)
    assert torch.equal(first_filters(network, data), network[0].weight.detach())


def test_what_has_no_pictures_is_refused() -> None:
    with pytest.raises(InputError, match="are no images"):
        first_filters(mlp((3, 5, 3)), blobs())
    data = digits()[0]
    with pytest.raises(InputError, match="takes 8 numbers"):
        first_filters(nn.Sequential(nn.Linear(8, 2), nn.Flatten(), nn.Linear(16, 10)), data)
    with pytest.raises(InputError, match="no Linear or Conv2d"):
        first_filters(nn.Flatten(), data)
    with pytest.raises(InputError, match="too small"):
        first_filters(nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten()), data)


def test_pictures_are_grey_at_zero_and_sorted_by_norm() -> None:
    filters = torch.zeros(3, 1, 3, 3)
    filters[0, 0, 0, 0] = 1.0
    filters[1, 0, 0, 0], filters[1, 0, 1, 1] = -4.0, 2.0
    tiles = pictures(filters, most=2)
    assert tiles.shape == (2, 3, 3)
    assert (tiles[0, 0, 0], tiles[0, 1, 1], tiles[0, 2, 2]) == (0, 191, 128)  # 127.5 - 127.5, + 63.75, + 0
    assert tiles[1, 0, 0] == 255
    assert pictures(torch.ones(4, 3, 5, 5)).shape == (4, 5, 5, 3)
    assert pictures(torch.ones(4, 2, 5, 5)).dtype == np.uint8
    assert (pictures(torch.zeros(1, 1, 3, 3)) == 128).all()


def test_neighbour_correlation_by_hand() -> None:
    board = (torch.arange(9) % 2).double().reshape(1, 1, 3, 3)
    # Mean 4/9. Each of the 12 pairs joins a 0 and a 1: (-4/9)(5/9) = -20/81. Power: 5 * 16/81 + 4 * 25/81 = 180/81.
    assert float(neighbour_correlation(board)) == pytest.approx(-20 / 81 / (180 / 81 / 9))
    assert float(neighbour_correlation(torch.full((1, 2, 4, 4), 3.0))) == 0.0


def test_noise_gives_uniform_p_values_and_a_wave_the_least() -> None:
    noise = torch.randn(400, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = smoothness_p_values(noise, permutations=99)
    share = float((p <= 0.05).double().mean())
    # Exact level 5/100; standard deviation sqrt(.05 * .95/400) = 0.011: four of them.
    assert abs(share - 0.05) < 0.044
    wave = torch.sin(torch.arange(6.0))[None, None, :, None] + torch.zeros(1, 1, 6, 6)
    assert float(smoothness_p_values(wave, permutations=99)) == pytest.approx(0.01)
    assert float(smoothness_p_values(torch.ones(1, 1, 3, 3), permutations=9)) == 1.0
