"""Where data come from: every SPEC, its reader, and the split into a training and a test part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from whydeep.core.data import Data
from whydeep.core.errors import InputError

from . import csv_file, npz_file, table
from .cifar10 import cifar10
from .embedded import digits, photos
from .idx import idx, mnist
from .image_folder import folder
from .openml import openml
from .parquet_file import parquet_file
from .spec import Spec, parse
from .split import split, standardise
from .synthetic.spec import synthetic

TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Source:
    """A kind of data: how its SPEC is written, its options (None: the reader checks them), and its reader.

    The reader returns both parts where the data come split, else one part and None.
    """

    pattern: str
    options: tuple[str, ...] | None
    read: Callable[[Spec, torch.Generator], tuple[Data, Data | None]]


SOURCES: dict[str, Source] = {
    "digits": Source("digits", ("test_fraction",), digits),
    "photos": Source("photos", ("patch", "n", "test_fraction"), photos),
    "mnist": Source("mnist:DIR", (), mnist),
    "idx": Source("idx:DIR", ("images", "labels", "test_fraction"), idx),
    "csv": Source("csv:FILE?target=NAME", (*table.OPTIONS, "delimiter"), csv_file.csv_file),
    "parquet": Source("parquet:FILE?target=NAME", table.OPTIONS, parquet_file),
    "npz": Source("npz:FILE?x=NAME&y=NAME", npz_file.OPTIONS, npz_file.npz_file),
    "folder": Source("folder:DIR", ("size", "channels", "test_fraction"), folder),
    "cifar10": Source("cifar10:DIR", (), cifar10),
    "openml": Source("openml:NAME", (*table.OPTIONS, "version"), openml),
    "synthetic": Source("synthetic:NAME", None, synthetic),
}


def load(spec: str, *, seed: int = 0) -> tuple[Data, Data]:
    """Return the training and the test part of the data that `spec` names.

    SPEC: digits, photos, mnist:DIR, idx:DIR, csv:FILE?target=NAME, parquet:FILE?target=NAME, npz:FILE?x=NAME&y=NAME,
    folder:DIR, cifar10:DIR, openml:NAME or synthetic:NAME; options follow a `?` as key=value, joined by `&`. What
    each option does stands with its reader.
    Pixels are in [0, 1]; tables keep their raw values, unless standardise=inputs or standardise=yes (inputs, and the
    targets of a regression, too) is given: then mean 0 and sd 1 on the training part.
    Data that come with a test part keep it. All others are split at random by `seed`: test_fraction (0.2) of the
    samples, stratified by class, are the test part. Synthetic data and the photographs' patches are drawn by `seed`.

    Raises `InputError` on an unknown SPEC or option (valid ones are listed), `DataError` on data that cannot be used.

    >>> train, test = load("digits", seed=0)
    >>> len(train), len(test), train.input_shape, train.classes
    (1437, 360, (1, 8, 8), 10)
    """
    generator = torch.Generator().manual_seed(seed)
    parsed, train, test = _read(spec, generator)
    if test is None:
        fraction = parsed.number("test_fraction", TEST_FRACTION)
        train, test = split(train, test_fraction=fraction, generator=generator)
    elif "test_fraction" in parsed.options and parsed.kind != "photos":
        raise InputError(f"{parsed.location} comes with its own test part", "leave out test_fraction")
    scaling = parsed.choice("standardise", ("no", "inputs", "yes"), "no")
    return (train, test) if scaling == "no" else standardise(train, test, targets=scaling == "yes")


def load_heldout(spec: str, *, seed: int = 0) -> Data:
    """Return the data of `spec` that a network was not trained on: its test part where it comes with one, else all.

    Raises as `load`, and `InputError` on standardise: the training part that would say how is not there.
    """
    parsed, train, test = _read(spec, torch.Generator().manual_seed(seed))
    if parsed.options.get("standardise", "no") != "no":
        raise InputError("standardise needs the training part", "write the standardised values to a file of their own")
    return train if test is None else test


def _read(spec: str, generator: torch.Generator) -> tuple[Spec, Data, Data | None]:
    parsed = parse(spec)
    if parsed.kind not in SOURCES:
        known = ", ".join(source.pattern for source in SOURCES.values())
        raise InputError(f"unknown data {spec!r}", f"give one of {known}")
    source = SOURCES[parsed.kind]
    if (":" in source.pattern) != bool(parsed.location):
        raise InputError(f"the data {spec!r} cannot be found", f"write {source.pattern}")
    if source.options is not None:
        parsed.known(source.options, parsed.kind)
    return parsed, *source.read(parsed, generator)
