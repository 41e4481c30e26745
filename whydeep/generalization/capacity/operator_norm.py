"""Upper bounds on the operator norm of a layer: by how much it can stretch the difference of two inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

OUTWARD = 1 + 1e-9
"""Float64 singular values err by some 1e-13 of the largest; this factor puts the result above the truth."""


def matrix_norm(weight: Tensor) -> float:
    """Return the largest singular value of a matrix (outputs, inputs), rounded up.

    >>> round(matrix_norm(torch.tensor([[3.0, 0.0], [0.0, 4.0]])), 6)
    4.0
    """
    return float(torch.linalg.matrix_norm(weight.double(), 2)) * OUTWARD


def kernel_norm(kernel: Tensor, *, groups: int = 1) -> float:
    """Return an upper bound on the norm of a zero-padded convolution, whatever its input size, stride and dilation.

    kernel: (outputs, inputs/groups, k_1, ..., k_r). Without groups, with stride 1 and on an infinite grid, the norm is
    sup_w ||K(w)||, K(w) = sum_a kernel[:, :, a] exp(i <a, w>), an (outputs, inputs) matrix. A finite grid with zeros
    outside is a compression of it, a stride keeps a subset of its rows, a dilation rescales w, and groups are
    diagonal blocks: none of them exceeds the supremum.

    The supremum is bounded from N equispaced w in every direction: u* K(w) v is a trigonometric polynomial of
    degree m = floor(k/2) in each of them (after a shift), and such a polynomial exceeds its largest value on the grid
    at most by 1 / cos(pi m / N) (M. Riesz 1914). So the result is above the truth, by 1 % for 3x3 and N = 32.
    Many channels would need too many singular values: there the sum of the norms of the taps is returned, which
    bounds the supremum by the triangle inequality.

    >>> round(kernel_norm(torch.tensor([[[1.0, 1.0]]])), 1)  # neighbours added: twice a constant signal
    2.0
    """
    if kernel.ndim < 3:
        raise ValueError(f"the kernel has shape {tuple(kernel.shape)}; give (outputs, inputs/groups, k_1, ...)")
    blocks = kernel.detach().double().chunk(groups)
    return max(_block_norm(block) for block in blocks) * OUTWARD


def _block_norm(kernel: Tensor) -> float:
    sizes = kernel.shape[2:]
    taps = float(torch.linalg.matrix_norm(kernel.flatten(2).permute(2, 0, 1), 2).sum())
    grid = [max(32, 8 * size) if size > 1 else 1 for size in sizes]
    if kernel.shape[0] * kernel.shape[1] * math.prod(grid) > 2**25:  # some seconds of singular values
        return taps
    spectrum = torch.fft.fftn(kernel, s=grid, dim=tuple(range(2, kernel.ndim)))
    largest = float(torch.linalg.matrix_norm(spectrum.flatten(2).permute(2, 0, 1), 2).max())
    between = math.prod(1 / math.cos(math.pi * (size // 2) / count) for size, count in zip(sizes, grid, strict=True))
    return min(taps, largest * between)


def layer_norm(layer: nn.Module) -> float:
    """Return an upper bound on the operator norm of a Linear or zero-padded convolution; `TypeError` on others."""
    if isinstance(layer, nn.Linear):
        return matrix_norm(layer.weight.detach())
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.padding_mode == "zeros":
        return kernel_norm(layer.weight, groups=layer.groups)
    raise TypeError(f"{type(layer).__name__} is no Linear and no zero-padded convolution; give one of these")
