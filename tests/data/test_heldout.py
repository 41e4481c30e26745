"""Held-out data of a SPEC: the test part it comes with, or all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from whydeep.core.errors import InputError
from whydeep.data import load, load_heldout


def test_a_source_without_a_test_part_is_held_out_whole(tmp_path: Path) -> None:
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(10) % 2)
    held = load_heldout(f"npz:{tmp_path / 'd.npz'}?x=x&y=y")
    assert len(held) == 10
    assert len(load_heldout("digits")) == 1797


def test_a_source_with_a_test_part_holds_out_that_part() -> None:
    spec = "photos?n=200"
    assert len(load_heldout(spec, seed=1)) == len(load(spec, seed=1)[1]) < 200


def test_standardising_without_the_training_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,y\n" + "".join(f"{k},{k % 2}\n" for k in range(10)))
    with pytest.raises(InputError, match="standardise needs the training part"):
        load_heldout(f"csv:{tmp_path / 'a.csv'}?target=y&standardise=yes")
