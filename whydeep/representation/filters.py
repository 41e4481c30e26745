"""The filters of the first layer, as pictures, and whether they are smoother than chance."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.randomness import or_default

from .features import private


def first_filters(model: nn.Module, data: Data) -> Tensor:
    """Return the weights of the first layer that runs as pictures (filters, channels, height, width).

    The first Linear or Conv2d to be executed: a convolution's kernels, or the rows of a Linear layer in the shape of
    the input when that is an image. Reads one sample; the model is copied.

    Raises `InputError` when the samples are no images (channels, height, width) or (height, width), when there is no
    such layer, when a Linear layer does not see all pixels at once, or when the pictures are smaller than 3 by 3.
    """
    shape = data.input_shape if len(data.input_shape) == 3 else (1, *data.input_shape)
    if len(shape) != 3:
        raise InputError(f"samples of shape {data.input_shape} are no images", "give (channels, height, width)")
    ran: list[nn.Module] = []
    with private(model, or_default(None)) as copied, torch.no_grad():
        handles = [
            module.register_forward_hook(lambda module, given, output: ran.append(module))
            for module in copied.modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        ]
        copied(data.x[torch.arange(1)])
        for handle in handles:
            handle.remove()
    if not ran:
        raise InputError("no Linear or Conv2d layer runs in the model", "nothing to draw")
    weight = ran[0].get_parameter("weight").detach().cpu()
    if isinstance(ran[0], nn.Linear):
        if weight.shape[1] != math.prod(shape):
            raise InputError(
                f"the first linear layer takes {weight.shape[1]} numbers, not the {math.prod(shape)} of an image",
                "its weights have no shape to draw",
            )
        weight = weight.reshape(-1, *shape)
    if min(weight.shape[2:]) < 3:
        raise InputError(f"the first filters are {weight.shape[2]} by {weight.shape[3]}", "too small to be smooth")
    return weight


def pictures(filters: Tensor, *, most: int = 64) -> NDArray[np.uint8]:
    """Return at most `most` filters, largest norm first, as tiles (n, h, w), or (n, h, w, 3) for three channels.

    Each is scaled by its own largest entry: pixel = 127.5 + 127.5 w / max |w|, so that grey is zero. Of one, two or
    more than three channels, that of the largest norm is drawn.
    """
    order = filters.flatten(1).norm(dim=1).argsort(descending=True, stable=True)[:most]
    chosen = filters[order].double()
    if chosen.shape[1] != 3:
        loudest = chosen.flatten(2).norm(dim=2).argmax(1)
        chosen = chosen[torch.arange(len(chosen)), loudest][:, None]
    peak = chosen.flatten(1).abs().amax(1).clamp(min=1e-30)[:, None, None, None]
    tiles = (127.5 + 127.5 * chosen / peak).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return tiles if tiles.shape[3] == 3 else tiles[..., 0]


def neighbour_correlation(filters: Tensor) -> Tensor:
    """Return for each filter (k, c, h, w) the correlation of neighbouring pixels, (k,).

    Over all horizontal and vertical neighbours p ~ q and channels, with each channel's mean taken off:

        [sum_(p~q) w_p w_q / number of pairs] / [sum_p w_p^2 / number of pixels],

    Moran's I (1950) with neighbour weights: near 1 for a smooth picture, near 0 for noise, 0 for a constant one.
    """
    centred = filters.double() - filters.double().mean((2, 3), keepdim=True)
    down = (centred[:, :, 1:] * centred[:, :, :-1]).sum((1, 2, 3))
    across = (centred[..., 1:] * centred[..., :-1]).sum((1, 2, 3))
    height, width = filters.shape[2:]
    pairs = (height - 1) * width + height * (width - 1)
    power = centred.square().sum((1, 2, 3))
    return torch.where(power > 0, (down + across) / pairs * height * width / power.clamp(min=1e-300), 0.0)


def smoothness_p_values(
    filters: Tensor, *, permutations: int = 499, generator: torch.Generator | None = None
) -> Tensor:
    """Return for each filter the p-value (k,) of its neighbour correlation against that of its shuffled pixels.

    (1 + number of permutations at least as large) / (1 + permutations): exact for exchangeable pixels, whatever their
    distribution. All channels of a filter are shuffled alike. Cost: `permutations` passes over the filters.
    """
    generator = or_default(generator)
    observed = neighbour_correlation(filters)
    flat = filters.flatten(2)
    at_least = torch.zeros_like(observed)
    for _ in range(permutations):
        order = torch.randperm(flat.shape[2], generator=generator)
        # Sums in another order differ in the last digits: a tie counts as at least as large.
        at_least += neighbour_correlation(flat[:, :, order].reshape(filters.shape)) >= observed - 1e-12
    return (1 + at_least) / (1 + permutations)
