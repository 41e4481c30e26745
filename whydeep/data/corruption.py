"""Corruptions of data: labels, pixels, shifts and deformations, each with a known dose.

Each takes data and returns new data of the same size; what was given is left as it was. Corruptions of the samples read
lazy data into memory, those of the labels leave them lazy.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.randomness import or_default

BLOCK = 2048
"""Samples that are worked on at a time, so that the memory beyond the result stays small."""


def label_noise(data: Data, fraction: float, *, generator: torch.Generator | None = None) -> Data:
    """Return the data with round(fraction n) labels replaced by one of the other classes, drawn uniformly.

    Every chosen label is wrong, so the noise is exact; Zhang et al. 2017 draw among all classes, where
    fraction / classes of the labels stay right by chance.
    Raises `ValueError` on a fraction outside [0, 1], `InputError` when the data have no classes.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction}; give a number in [0, 1]")
    if data.classes is None or data.classes < 2:
        raise InputError(f"{data.name} has no two classes, so no label can be wrong", "give classification data")
    generator = or_default(generator)
    y = data.targets.clone()
    chosen = torch.randperm(len(y), generator=generator)[: round(fraction * len(y))]
    step = torch.randint(1, data.classes, (len(chosen),), generator=generator)
    chosen, step = chosen.to(y.device), step.to(y.device)
    y[chosen] = (y[chosen] + step) % data.classes
    return replace(data, y=y, name=f"{data.name}, {100 * fraction:g} % label noise")


def random_labels(data: Data, *, generator: torch.Generator | None = None) -> Data:
    """Return the data with the targets dealt out anew by one random permutation.

    Targets and samples are then independent, and every class keeps its size: what a network learns of them is
    memory. Zhang et al. 2017 draw each label uniformly, which also evens out the classes.
    """
    targets = data.targets
    order = torch.randperm(len(data), generator=or_default(generator)).to(targets.device)
    return replace(data, y=targets[order], name=f"{data.name}, random labels")


def shuffled_pixels(data: Data, *, generator: torch.Generator | None = None) -> Data:
    """Return the data with the pixels of all samples in one and the same random order (Zhang et al. 2017).

    Of images (channels, height, width) the places are permuted and channels stay together; of other samples the
    entries. Neighbourhood is destroyed; to a fully connected network nothing has changed.
    """
    pixels = _pixels(_in_memory(data))
    order = torch.randperm(pixels.shape[2], generator=or_default(generator)).to(pixels.device)
    return _changed(data, pixels[:, :, order], "shuffled pixels")


def random_pixels(data: Data, *, generator: torch.Generator | None = None) -> Data:
    """Return the data with the pixels of each sample in a random order of its own (Zhang et al. 2017).

    Places as in `shuffled_pixels`. Only the histogram of a sample is left.
    """
    generator = or_default(generator)
    pixels = _pixels(_in_memory(data))
    mixed = torch.empty_like(pixels)
    for first in range(0, len(pixels), BLOCK):
        own = pixels[first : first + BLOCK]
        # Double precision: equal keys, which would bias the order, have a chance of 2^-53 a pair.
        keys = torch.rand(len(own), 1, own.shape[2], generator=generator, dtype=torch.float64)
        mixed[first : first + BLOCK] = own.gather(2, keys.argsort(2).expand(own.shape).to(own.device))
    return _changed(data, mixed, "random pixels")


def gaussian_pixels(data: Data, *, generator: torch.Generator | None = None) -> Data:
    """Return the data with every entry drawn from N(m, s^2), m and s the mean and sd (1/n) of all entries.

    As Zhang et al. 2017. Samples know nothing of their labels any more. The bounds are dropped: noise has none.
    """
    x = _in_memory(data)
    mean, sd = float(x.double().mean()), float(x.double().std(correction=0))
    noise = torch.randn(x.shape, generator=or_default(generator), dtype=x.dtype).to(x.device)
    return replace(data, x=noise * sd + mean, bounds=None, name=f"{data.name}, gaussian pixels")


def shift(data: Data, *, dx: float = 0.0, dy: float = 0.0) -> Data:
    """Return images moved by dx pixels to the right and dy down; what comes in from outside is zero.

    Whole numbers move pixels exactly; a fraction is interpolated between the two neighbours (bilinear).
    Raises `InputError` when the samples are not images, `ValueError` when dx or dy is not finite.
    """
    if not (math.isfinite(dx) and math.isfinite(dy)):
        raise ValueError(f"dx={dx}, dy={dy}; give finite numbers of pixels")
    x = _images(data)
    for dim, distance in ((3, dx), (2, dy)):
        whole = math.floor(distance)
        part = distance - whole
        moved = _moved(x, whole, dim)
        x = moved if part == 0 else (1 - part) * moved + part * _moved(x, whole + 1, dim)
    return replace(data, x=x, bounds=_with_zero(data.bounds), name=f"{data.name}, shifted by ({dx:g}, {dy:g})")


def deform(data: Data, *, size: float, smoothness: float = 2.0, generator: torch.Generator | None = None) -> Data:
    """Return images deformed smoothly, each by a field of its own: L_tau x(u) = x(u - tau(u)) (Mallat 2012).

    tau is white Gaussian noise smoothed by a Gaussian of sd `smoothness` pixels, then scaled so that the largest
    length |tau(u)| of each image is `size` pixels. The larger the smoothness against size, the smaller the gradient
    of tau, by which scattering measures a deformation; far above the image's width it is a mere shift.
    Raises `InputError` when the samples are not images, `ValueError` when size < 0 or smoothness <= 0.
    """
    if not size >= 0 or not smoothness > 0:
        raise ValueError(f"size={size}, smoothness={smoothness}; give size >= 0 and smoothness > 0")
    generator = or_default(generator)
    x = _images(data)
    moved = torch.empty_like(x)
    for first in range(0, len(x), BLOCK):
        own = x[first : first + BLOCK]
        tau = _smooth_field(len(own), (own.shape[2], own.shape[3]), smoothness, generator)
        longest = tau.norm(dim=1).amax((1, 2)).view(-1, 1, 1, 1)
        moved[first : first + BLOCK] = warp(own, (size * tau / longest).to(own))
    bounds = _with_zero(data.bounds)
    if bounds is not None:
        moved.clamp_(*bounds)  # interpolation is a convex sum, but rounding may leave the bounds in the last digit
    name = f"{data.name}, deformed by {size:g} pixels"
    return replace(data, x=moved, bounds=bounds, name=name)


def warp(images: Tensor, displacement: Tensor) -> Tensor:
    """Return x(u - tau(u)) for images x (n, c, h, w): bilinear, zero outside.

    displacement: tau (n, 2, h, w) in pixels, to the right and down, so that a constant tau is a `shift`.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, dtype=images.dtype, device=images.device).view(1, -1, 1) - displacement[:, 1]
    columns = torch.arange(width, dtype=images.dtype, device=images.device).view(1, 1, -1) - displacement[:, 0]
    # grid_sample without align_corners: pixel k of w has its centre at (2 k + 1) / w - 1; this also holds for w = 1.
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    return torch.nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _smooth_field(n: int, shape: tuple[int, int], smoothness: float, generator: torch.Generator) -> Tensor:
    """Return (n, 2, h, w): stationary, because the noise reaches beyond the image by the kernel's radius."""
    radius = math.ceil(3 * smoothness)  # the Gaussian has fallen to 1 % there
    kernel = torch.exp(-torch.arange(-radius, radius + 1, dtype=torch.float32).square() / (2 * smoothness**2))
    noise = torch.randn(2 * n, 1, shape[0] + 2 * radius, shape[1] + 2 * radius, generator=generator)
    smooth = torch.nn.functional.conv2d(noise, kernel.view(1, 1, -1, 1))
    return torch.nn.functional.conv2d(smooth, kernel.view(1, 1, 1, -1)).view(n, 2, *shape)


def _moved(x: Tensor, by: int, dim: int) -> Tensor:
    """Return x moved by whole entries along one dimension, zeros coming in."""
    result = torch.zeros_like(x)
    kept = x.shape[dim] - abs(by)
    if kept > 0:
        result.narrow(dim, max(by, 0), kept).copy_(x.narrow(dim, max(-by, 0), kept))
    return result


def _in_memory(data: Data) -> Tensor:
    x = data.in_memory().x
    assert isinstance(x, Tensor)
    return x


def _images(data: Data) -> Tensor:
    x = _in_memory(data)
    if x.ndim != 4:
        shape = " x ".join(map(str, data.input_shape))
        raise InputError(f"samples of {data.name} are {shape}, not images", "give (n, channels, height, width)")
    return x


def _pixels(x: Tensor) -> Tensor:
    """Return (n, channels, places): of images the channels apart, of other samples one channel."""
    return x.flatten(2) if x.ndim == 4 else x.flatten(1).unsqueeze(1)


def _changed(data: Data, pixels: Tensor, how: str) -> Data:
    return replace(data, x=pixels.reshape(len(data), *data.input_shape), name=f"{data.name}, {how}")


def _with_zero(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return bounds that hold for the zeros, too, which come in from outside the image."""
    return None if bounds is None else (min(bounds[0], 0.0), max(bounds[1], 0.0))
