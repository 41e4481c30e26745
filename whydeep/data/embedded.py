"""Data that come with scikit-learn, so that everything runs without a download: digits and two photographs."""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import InputError

from .spec import Spec

BLOCK = 4
"""Photographs are cut into blocks of so many patch sides; a block belongs to the training or to the test part."""


def digits(spec: Spec, generator: torch.Generator) -> tuple[Data, None]:
    """Return the 1,797 handwritten digits: x (n, 1, 8, 8) in [0, 1], that is the stored 0..16 divided by 16."""
    raw = load_digits()
    x = torch.from_numpy(raw.images).div(16).float().unsqueeze(1)
    labels = tuple(str(digit) for digit in range(10))
    return Data(x, torch.from_numpy(raw.target).long(), "digits", classes=10, bounds=(0.0, 1.0), labels=labels), None


def photos(spec: Spec, generator: torch.Generator) -> tuple[Data, Data]:
    """Return grey patches (n, 1, patch, patch) in [0, 1]; the class says which photograph a patch was taken from.

    Grey is 0.299 red + 0.587 green + 0.114 blue. Options: patch (side, 8), n (patches of both parts, 10,000, half
    from each photograph), test_fraction (0.2).
    Patches overlap each other, so they are not split at random: each photograph is cut into blocks of 4 x 4 patches,
    the blocks are split, and patches are drawn inside blocks. No pixel is in both parts.

    Raises `InputError` when patches are so large that a photograph has fewer than two blocks, or n is below 4.
    """
    side = spec.integer("patch", 8)
    n = spec.integer("n", 10_000, least=4)
    fraction = spec.number("test_fraction", 0.2)
    held = math.ceil(fraction * n)
    if not 0 < fraction < 1 or not 2 <= held <= n - 2:
        raise InputError(
            f"test_fraction={fraction:g} of {n} patches", "leave at least two patches for each part: 0.2 of 100, say"
        )
    raw = load_sample_images()
    names = tuple(str(name).replace("\\", "/").rsplit("/", 1)[-1].split(".")[0] for name in raw.filenames)
    parts: list[list[Tensor]] = [[], []]
    for index, image in enumerate(raw.images):
        grey = torch.from_numpy(image @ np.array([0.299, 0.587, 0.114]) / 255).float().clamp(0, 1)
        blocks = _blocks(grey, side, generator)
        kept = len(blocks) - min(max(1, round(fraction * len(blocks))), len(blocks) - 1)
        for part, (size, own) in enumerate(((n - held, blocks[:kept]), (held, blocks[kept:]))):
            parts[part].append(_draw(own, side, size // 2 + (size % 2 if index == 0 else 0), generator))
    train, test = (_labelled(part, names, generator) for part in parts)
    return train, test


def _blocks(grey: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return the blocks (k, 4 side, 4 side) of one photograph, in a random order."""
    width = BLOCK * side
    rows, columns = grey.shape[0] // width, grey.shape[1] // width
    if rows * columns < 2:
        largest = max(p for p in range(1, side) if (grey.shape[0] // (BLOCK * p)) * (grey.shape[1] // (BLOCK * p)) >= 2)
        raise InputError(f"patches of side {side} are too large for the photographs", f"give at most {largest}")
    blocks = grey[: rows * width, : columns * width].reshape(rows, width, columns, width).transpose(1, 2)
    return blocks.reshape(-1, width, width)[torch.randperm(rows * columns, generator=generator)]


def _draw(blocks: Tensor, side: int, size: int, generator: torch.Generator) -> Tensor:
    """Return `size` patches (size, 1, side, side), each at a random place of a random block."""
    places = blocks.shape[1] - side + 1
    block = torch.randint(len(blocks), (size, 1, 1), generator=generator)
    top = torch.randint(places, (size, 1, 1), generator=generator)
    left = torch.randint(places, (size, 1, 1), generator=generator)
    step = torch.arange(side)
    return blocks[block, top + step.view(1, -1, 1), left + step.view(1, 1, -1)].unsqueeze(1)


def _labelled(patches: list[Tensor], names: tuple[str, ...], generator: torch.Generator) -> Data:
    y = torch.cat([torch.full((len(own),), index) for index, own in enumerate(patches)])
    order = torch.randperm(len(y), generator=generator)
    x = torch.cat(patches)[order]
    return Data(x, y[order], "photos", classes=len(names), bounds=(0.0, 1.0), labels=names)
