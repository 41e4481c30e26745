"""Steps that never raise what they are to lower: a step is shortened, column by column, until it does not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALVINGS = 10
"""After so many halvings a step is a thousandth of what was wanted, and it is left out."""


def shares(value_at: Callable[[Tensor], Tensor], before: Tensor) -> Tensor:
    """Return for every part of a separable step the largest t in {1, 1/2, 1/4, ..., 0} that does not raise its value.

    value_at: t (m,) -> the values (m,) of the m parts after the share t of their steps. before: those at t = 0.

    >>> shares(lambda t: (1 - torch.tensor([1.0, 3.0]) * t).square(), torch.ones(2))  # least at t = 1 and 1/3
    tensor([1.0000, 0.5000])
    """
    share = torch.ones_like(before)
    for _ in range(HALVINGS):
        raised = ~(value_at(share) <= before)  # also where a value is not a number
        if not bool(raised.any()):
            return share
        share = torch.where(raised, share / 2, share)
    return torch.where(value_at(share) <= before, share, 0.0)
