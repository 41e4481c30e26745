"""Why do deep networks work? The theorems and algorithms of the lecture, run on one's own network and data."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whydeep import approximation as approximation
    from whydeep import data as data
    from whydeep import estimators as estimators
    from whydeep import generalization as generalization
    from whydeep import networks as networks
    from whydeep import optimization as optimization
    from whydeep import representation as representation
    from whydeep.core import Data as Data
    from whydeep.core import DataError as DataError
    from whydeep.core import InputError as InputError
    from whydeep.core import Problem as Problem
    from whydeep.core import check as check
    from whydeep.core import judge as judge
    from whydeep.examination import examine as examine
    from whydeep.generalization import certify as certify
    from whydeep.racing import race as race

# Names are imported when they are first used: `whydeep --help` does not wait for PyTorch.
_HOME = {
    "Data": "whydeep.core",
    "DataError": "whydeep.core",
    "InputError": "whydeep.core",
    "Problem": "whydeep.core",
    "certify": "whydeep.generalization",
    "check": "whydeep.core",
    "examine": "whydeep.examination",
    "judge": "whydeep.core",
    "race": "whydeep.racing",
}
_PACKAGES = (
    "approximation",
    "core",
    "data",
    "estimators",
    "generalization",
    "networks",
    "optimization",
    "representation",
)
__all__ = [*_HOME, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"whydeep.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"whydeep has no {name!r}; it has {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)
