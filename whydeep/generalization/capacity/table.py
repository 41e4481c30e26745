r"""The lecture's table of capacities made numeric: seven bounds on the risk of the network at hand, constants included.

Every row reads R <= margin loss + complexity + confidence term for the 0-1 risk R, where the loss is the ramp at margin
gamma: 1 below margin 0, 0 above gamma and linear between, at least the 0-1 loss. For bounds through a Rademacher
average the complexity is twice it and the confidence term 3 sqrt(ln(2/delta') / (2 n)).

All norms and gamma are looked up after training, so each is rounded up (gamma down, to 2^-j) to a grid, and the union
bound over the grids is paid (`union_grid`): delta' is what is left of delta after that and after the rows' equal
shares. The constants are derived in the files of the bounds (`growth_function`, `covering`, `peeling`,
`spectral_pac_bayes`), which also say what is recalled from a paper and not checked against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from whydeep.data.accept import as_data
from whydeep.generalization.risk import margins

from .bounds import BOUNDS, Prepared
from .chain import Chain, read_chain
from .growth_function import recalled_vc_dimension, vc_dimension, why_not_counted
from .union_grid import step_price


@dataclass(frozen=True)
class CapacityBound:
    """With probability 1 - delta over n independent training samples, the risk is at most `value`: a row of the table.

    value = margin_loss + complexity + confidence_term, of the 0-1 loss; above 1 it says nothing.
    margin: the gamma of the best such sum; None for the row that needs none, whose loss is the training error.
    samples_needed: how many samples would bring it below 1 at the same norms and margins; infinite if none would.
    factors: what the complexity is the product of, by name, where it is one. source: with what was recalled.
    """

    name: str
    value: float
    margin: float | None
    margin_loss: float
    complexity: float
    confidence_term: float
    samples: int
    samples_needed: float
    source: str
    factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def vacuous(self) -> bool:
        """Whether it is no better than 1, which holds without any theory."""
        return self.value >= 1

    @property
    def too_big(self) -> float:
        """The factor by which the bound exceeds the trivial value 1."""
        return self.value

    @property
    def dominated_by(self) -> str:
        """The largest of the three terms."""
        terms = {
            "margin loss": self.margin_loss,
            "complexity": self.complexity,
            "confidence term": self.confidence_term,
        }
        return max(terms, key=lambda name: terms[name])

    @property
    def largest_factor(self) -> str:
        """The name of the largest factor of the complexity; "" where it is no product."""
        return max(self.factors, key=lambda name: self.factors[name], default="")


@dataclass(frozen=True)
class CapacityTable:
    """The bounds of one network, row after row; all of them hold at once with probability 1 - delta.

    left_out: bounds that are not for this network, with the reason. value_at: (row, samples) -> the same bound at
    another number of samples with the same norms and margins.
    vc_dimension: an upper bound, of the sign of a score difference; None where an activation is not piecewise linear.
    recalled_vc_dimension: the same by the formula of the paper.
    """

    chain: Chain
    rows: tuple[CapacityBound, ...]
    left_out: Mapping[str, str]
    value_at: Callable[[str, int], float]
    vc_dimension: int | None
    recalled_vc_dimension: float | None

    def __iter__(self) -> Iterator[CapacityBound]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str | int) -> CapacityBound:
        """Return the row of a name or number; raises `KeyError` on another name."""
        if isinstance(name, int):
            return self.rows[name]
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row {name!r}; there are {', '.join(row.name for row in self.rows)}")

    @property
    def smallest(self) -> CapacityBound:
        """The best of them; each was given its share of delta, so this may be looked up."""
        return min(self.rows, key=lambda row: row.value)

    @property
    def edges(self) -> int:
        """E, the number of weights and biases, shared ones counted once."""
        return sum(link.parameters for link in self.chain.links)


def capacity_table(
    model: nn.Module, data: Any, *, start: nn.Module | None = None, delta: float = 0.05
) -> CapacityTable:
    """Return the capacity bounds on the risk of `model`, from its norms and its margins on the training data `data`.

    data: `Data`, a pair (x, y) of tensors or arrays, or a DataLoader.
    start: the network before training, drawn without the data; the (2,1) distances are measured from it. Every bound
    that fits the network gets an equal share of delta, so all hold at once.

    Raises `InputError` when the network is no chain of affine layers and known Lipschitz maps (naming the module) or
    the data have no classes. Cost: one pass over the data, one singular value decomposition a layer.

    >>> import torch
    >>> x = torch.tensor([[-1.0], [1.0]])
    >>> table = capacity_table(nn.Sequential(nn.Linear(1, 2)), (x, torch.tensor([0, 1])))
    >>> [row.vacuous for row in table]  # two samples say nothing
    [True, True, True, True, True, True, True]
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta}; give a probability in (0, 1)")
    data = as_data(data, name="training data")
    chain = read_chain(model, data, start=start)
    found = margins(model, data).cpu().numpy()
    left_out = {bound.name: reason for bound in BOUNDS if (reason := bound.refuses(chain)) is not None}
    prepared = {bound.name: (bound, bound.prepare(chain)) for bound in BOUNDS if bound.name not in left_out}
    share = math.log(len(prepared) / delta)

    def at(name: str, samples: int) -> CapacityBound:
        bound, ready = prepared[name]
        return _best(name, bound.source, ready, found, samples, share)

    def value_at(name: str, samples: int) -> float:
        return at(name, samples).value

    rows = tuple(
        replace(at(name, len(data)), samples_needed=_needed(partial(value_at, name), len(data))) for name in prepared
    )
    counted = why_not_counted(chain) is None
    return CapacityTable(
        chain,
        rows,
        left_out,
        value_at,
        vc_dimension(chain) if counted else None,
        recalled_vc_dimension(chain) if counted else None,
    )


def _best(
    name: str, source: str, ready: Prepared, found: NDArray[np.float64], samples: int, share: float
) -> CapacityBound:
    """The smallest bound over the grid of gamma; -ln delta' = share + price of the norms + price of gamma."""
    if not ready.needs_margin:
        error = float((found <= 0).mean())
        complexity, confidence = ready.terms(1.0, samples, share + ready.price)
        value = error + complexity + confidence
        return CapacityBound(name, value, None, error, complexity, confidence, samples, math.inf, source, ready.factors)
    best: CapacityBound | None = None
    # No gamma above the median margin: beyond, complexity is only traded for a margin loss that says nothing either.
    typical = float(np.median(found))
    typical = typical if typical > 0 else float(np.abs(found).max())
    top = math.floor(math.log2(typical)) if typical > 0 else 0
    # Below 2^-20 of it nothing is gained: the margin loss is the training error by then.
    for step in range(top, top - 21, -1):
        margin = 2.0**step
        loss = float(np.clip(1 - found / margin, 0, 1).mean())
        complexity, confidence = ready.terms(margin, samples, share + ready.price + step_price(step))
        value = loss + complexity + confidence
        if best is None or value < best.value:
            factors = dict(ready.factors) | {"1 / margin": 1 / margin}
            best = CapacityBound(name, value, margin, loss, complexity, confidence, samples, math.inf, source, factors)
    assert best is not None
    return best


def _needed(value: Callable[[int], float], samples: int) -> float:
    """The least number of samples with value below 1, to 1 %: the value falls as they grow."""
    low, high = 1, max(1, samples)
    while value(high) >= 1:
        low, high = high, 2 * high
        if high > 2**100:
            return math.inf
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if value(middle) >= 1 else (low, middle)
    return float(high)
