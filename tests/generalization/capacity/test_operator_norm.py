from __future__ import annotations

import pytest
import torch
from torch import nn

from whydeep.generalization.capacity.operator_norm import kernel_norm, layer_norm, matrix_norm


def dense(layer: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """The matrix of a layer without bias: its outputs on the unit vectors."""
    size = int(torch.tensor(shape).prod())
    with torch.no_grad():
        return layer(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).T


def test_matrix_norm_is_the_largest_singular_value_from_above() -> None:
    weight = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    largest = float(torch.linalg.svdvals(weight).max())
    assert largest <= matrix_norm(weight) <= largest * (1 + 1e-8)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"kernel_size": 3, "padding": 1}, (2, 6, 5)),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, (2, 6, 6)),
        ({"kernel_size": 3, "padding": 2, "dilation": 2}, (2, 6, 6)),
        ({"kernel_size": (1, 4)}, (2, 6, 6)),
        ({"kernel_size": 2, "groups": 2}, (2, 5, 5)),
        ({"kernel_size": 1}, (2, 3, 3)),
        ({"kernel_size": 5, "padding": 4}, (2, 1, 1)),
    ],
)
def test_kernel_norm_is_never_below_the_dense_matrix(options: dict[str, object], shape: tuple[int, ...]) -> None:
    for seed in range(5):
        layer = nn.Conv2d(2, 4, bias=False, **options).double()
        generator = torch.Generator().manual_seed(seed)
        layer.weight.data = torch.randn(layer.weight.shape, dtype=torch.float64, generator=generator)
        assert layer_norm(layer) >= float(torch.linalg.matrix_norm(dense(layer, shape), 2))


def test_kernel_norm_approaches_the_truth_on_large_inputs() -> None:
    # A constant signal is stretched by the sum of the taps; 1 % is lost between grid points, a little at the border.
    layer = nn.Conv1d(1, 1, 3, padding=1, bias=False).double()
    layer.weight.data = torch.tensor([[[1.0, 2.0, 1.0]]]).double()
    truth = float(torch.linalg.matrix_norm(dense(layer, (1, 200)), 2))
    assert 4 <= layer_norm(layer) <= 4 / 0.995 + 1e-6  # cos(pi / 32) = 0.9952
    assert truth == pytest.approx(4, rel=1e-3)


def test_a_maximum_between_grid_points_is_not_missed() -> None:
    # |1 - exp(i (w - 0.7))|... : the taps 1, -exp(-0.7 i) as a real 2 x 2 rotation peak at w = 0.7 + pi, off any grid.
    angle = torch.tensor(0.7, dtype=torch.float64)
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    kernel = torch.stack([torch.eye(2, dtype=torch.float64), -rotation], dim=2)
    assert kernel_norm(kernel) >= 2.0


def test_many_channels_fall_back_on_the_triangle_inequality() -> None:
    kernel = torch.zeros(300, 300, 3, 3)
    kernel[:, :, 0, 0] = torch.eye(300)
    kernel[:, :, 1, 2] = 2 * torch.eye(300)
    assert kernel_norm(kernel) == pytest.approx(3.0, rel=1e-6)


def test_other_layers_and_paddings_are_refused() -> None:
    for layer in (nn.ReLU(), nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")):
        with pytest.raises(TypeError, match="zero-padded"):
            layer_norm(layer)
    with pytest.raises(ValueError, match="k_1"):
        kernel_norm(torch.zeros(2, 2))
