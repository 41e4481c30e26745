"""Twin trainings: SGD with one sample a step on two sets that differ in one sample, with the same indices in both.

The shared indices are the coupling of the stability proofs: a step moves the twins apart only where it draws the sample
that was replaced, or where the update itself drives them apart.
Source: Hardt, Recht and Singer 2016, "Train faster, generalize better" (recalled, not checked against the paper).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def twin_training(
    update: Callable[[Tensor, Tensor], Tensor],
    samples: Tensor,
    replaced: float,
    *,
    steps: int,
    chains: int,
    generator: torch.Generator,
    favour: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return the weights of `chains` independent pairs of twins after `steps` updates from zero, each (chains,).

    update: (weights (chains,), the sample each one draws (chains,)) -> new weights; it may project them.
    samples: z_1..z_n (n,). replaced: what stands in place of z_1 in the twin's set.
    favour: how much more often than each other sample the first is drawn; 1 is SGD.
    Raises `ValueError` when `favour` is negative or not finite. Cost: two updates of all chains a step.

    >>> z = torch.tensor([1.0, 0.0]).double()  # w + z: twins are apart by how often z_1 was drawn
    >>> w, twin = twin_training(
    ...     lambda w, z: w + z, z, 0.0, steps=3, chains=1000, generator=torch.Generator().manual_seed(0)
    ... )
    >>> twin.abs().max().item(), sorted(set((w - twin).tolist()))
    (0.0, [0.0, 1.0, 2.0, 3.0])
    """
    if not 0 <= favour < float("inf"):
        raise ValueError(f"favour={favour}; give a number >= 0")
    other = samples.clone()
    other[0] = replaced
    chances = torch.ones(len(samples), dtype=torch.float64)
    chances[0] = favour
    weights = torch.zeros(chains, dtype=samples.dtype)
    twin = weights.clone()
    for _ in range(steps):
        index = torch.multinomial(chances, chains, replacement=True, generator=generator)
        weights, twin = update(weights, samples[index]), update(twin, other[index])
    return weights, twin
