"""Folders of images, one folder a class, read when they are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import DataError

from .files import existing_folder
from .spec import Spec

GREY, COLOUR = ("1", "L"), ("P", "RGB")
"""Modes of Pillow that become one channel or three without loss."""


@dataclass(frozen=True)
class ImageFiles:
    """Images that are opened on indexing: (k, channels, height, width) float32 in [0, 1].

    height, width: the size that all files have, or the size that every image is brought to when `fit` is true:
    scaled until it covers the size, then cut around its centre.
    Indexing raises `DataError` on a file that ends too early or has changed its size since it was opened.
    """

    paths: Sequence[Path]
    channels: int
    height: int
    width: int
    fit: bool = False

    @property
    def shape(self) -> torch.Size:
        """(n, channels, height, width)."""
        return torch.Size((len(self.paths), self.channels, self.height, self.width))

    @property
    def dtype(self) -> torch.dtype:
        """Single precision."""
        return torch.float32

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Tensor) -> Tensor:
        images = torch.empty(len(indices), *self.shape[1:])
        for position, index in enumerate(indices.tolist()):
            pixels = np.divide(self._pixels(self.paths[index]), np.float32(255))
            images[position] = torch.from_numpy(pixels.reshape(self.height, self.width, -1)).permute(2, 0, 1)
        return images

    def _pixels(self, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        mode = "L" if self.channels == 1 else "RGB"
        try:
            with Image.open(path) as image:
                read: Image.Image = image.convert(mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:
            raise DataError(path, f"the image is damaged or cut off ({fault})", "replace or remove it") from fault
        if self.fit:
            read = ImageOps.fit(read, (self.width, self.height), method=Image.Resampling.BILINEAR)
        if read.size != (self.width, self.height):
            raise DataError(
                path, f"it is {_size(read.size)} now, not {_size((self.width, self.height))}", "load the folder again"
            )
        return np.asarray(read, dtype=np.uint8)


def folder(spec: Spec, generator: torch.Generator) -> tuple[Data, Data | None]:
    """Return the images below a folder: its subfolders, sorted by name, are the classes; they may have subfolders.

    A folder that holds only `train` and `test` (or `val`) keeps that split. Headers are read at once, pixels later.
    Pixels are taken as stored: an orientation tag of a camera is not followed. Files whose name begins with a dot
    are not samples, nor are files beside the class folders that have no image's name.
    Options: size (images are scaled and cut to size x size), channels (as_stored, grey or rgb).

    Raises `DataError` when there are no class folders, one only, or an empty one; when images lie beside them, when a
    file is no image, when sizes differ and no `size` is given, and when grey and colour are mixed, or a file has
    transparency or more than 8 bits, and no `channels` are given.
    """
    root = existing_folder(spec.location)
    parts = {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")}
    if parts not in ({"train", "test"}, {"train", "val"}):
        if {"train", "test", "val"} <= parts:
            raise DataError(root, "it holds train, val and test", "keep train and the one to test on in a folder")
        return _data(root, spec, *_listed(root)), None
    held = (parts - {"train"}).pop()
    first, second = _listed(root / "train"), _listed(root / held)
    if first[2] != second[2]:
        odd = sorted(set(first[2]) ^ set(second[2]))
        raise DataError(root, f"the classes {', '.join(odd[:5])} are in one part only", "give both the same classes")
    whole = _data(root, spec, first[0] + second[0], first[1] + second[1], first[2])  # sizes agree across both
    order = torch.arange(len(whole))
    return whole.take(order[: len(first[0])]), whole.take(order[len(first[0]) :])


def _listed(root: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Return the files, their classes and the names of the classes."""
    endings = Image.registered_extensions()
    loose = [path.name for path in sorted(root.iterdir()) if path.is_file() and path.suffix.lower() in endings]
    if loose:
        raise DataError(root, f"{len(loose)} images as {loose[0]} lie beside the class folders", "move or remove them")
    labels = tuple(sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if not labels:
        raise DataError(root, "there are no class folders", "give one folder of images a class")
    if len(labels) < 2:
        raise DataError(root, f"there is one class folder only ({labels[0]})", "give at least two classes")
    paths: list[Path] = []
    y: list[int] = []
    for number, label in enumerate(labels):
        own = [p for p in sorted((root / label).rglob("*")) if p.is_file() and not p.name.startswith(".")]
        if not own:
            raise DataError(root / label, "the class folder is empty", "put images into it or remove it")
        paths += own
        y += [number] * len(own)
    return paths, y, labels


def _data(root: Path, spec: Spec, paths: list[Path], y: list[int], labels: tuple[str, ...]) -> Data:
    sizes: Counter[tuple[int, int]] = Counter()
    modes: dict[str, Path] = {}
    for path in paths:
        try:
            with Image.open(path) as image:  # reads the header only
                sizes[image.size] += 1
                modes.setdefault(image.mode, path)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:
            raise DataError(path, "this is not an image that can be read", "replace or remove it") from fault
    if len(sizes) > 1 and "size" not in spec.options:
        listed = ", ".join(f"{count} of {_size(size)}" for size, count in sizes.most_common(3))
        raise DataError(root, f"the images have {len(sizes)} sizes ({listed})", "add ?size=32, say, to scale them")
    channels = _channels(root, spec.choice("channels", ("as_stored", "grey", "rgb"), "as_stored"), modes)
    if "size" in spec.options:
        width = height = spec.integer("size", 32)
    else:
        width, height = next(iter(sizes))
    samples = ImageFiles(tuple(paths), channels, height, width, fit="size" in spec.options)
    return Data(samples, torch.tensor(y), root.resolve().name, classes=len(labels), bounds=(0.0, 1.0), labels=labels)


def _channels(root: Path, wanted: str, modes: dict[str, Path]) -> int:
    if wanted != "as_stored":
        return 1 if wanted == "grey" else 3
    remedy = "add ?channels=grey or ?channels=rgb to convert all"
    for mode, path in modes.items():
        if mode not in GREY + COLOUR:
            raise DataError(path, f"its pixels are of the kind {mode}, neither 8-bit grey nor RGB", remedy)
    if all(mode in GREY for mode in modes):
        return 1
    if any(mode in GREY for mode in modes):
        raise DataError(root, "grey and colour images are mixed", remedy)
    return 3


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
