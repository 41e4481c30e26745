"""Where ADMM starts from: the given weights, or the same ones rescaled where they let every signal fade."""

from __future__ import annotations

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.optimization.alternating.activation import SIGMOID
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import target_rows
from whydeep.optimization.alternating.stochastic_admm.rescaled_start import rescaled_weights, spreads

STARTING = 2048
"""Samples from which the spread of a start is taken: it is known to a few per cent."""
FADES = 0.2
"""A hidden layer of sigmoids fades where its pre-activations have a smaller standard deviation than this.

There s(u) = 1/2 + u/4 - u^3/48 + ... is a straight line to u^2/12, a third of a per cent, and the network is linear.
On digits PyTorch's start does from the first layer on, Xavier's of gain 1 from the second, of gain 4 from the fifth.
"""
LEARNT = 0.5
"""A network whose outputs vary this much of what the targets do has learnt something, and is left as it is."""
WIDE = 60
"""Narrower layers are left as they are: at 30 units the iterates from a rescaled start swing, and digits are read worse
than from PyTorch's own (training error after 40 sweeps .11 against .05 with 4 layers of 30, .03 against .05 with 60).
"""
SPREAD = 0.5
OFFSETS = 5.0
"""The units' means are OFFSETS / (number of hidden layers), at most 1: what bends in each layer adds up over layers.

Chosen on folds of the digits' training data, from PyTorch's start, spread 0.5, last layer refitted, accuracy on the
fold left out: 3 layers, means 0, 1 and 2: .965 .978 .977; 6 layers .963 .972 .971; 10 layers, means 0, 0.5 and 1: .960
.977 .976; 20 layers, means 0 and 0.5: .953 .951 (over three, three, two and two folds). For regression nothing was
chosen: sin 5x, 2 layers of 100, ten sweeps from there have a mean squared error of 8e-5, from the given start 3e-3.
"""


def starting_weights(chain: Chain, train: Data, spread: float | str | None) -> tuple[Tensor, ...] | None:
    """Return the weights to start from, rescaled as `ADMM` says of `spread`, or None for the given ones."""
    if spread is None:
        return None
    few = train.take(torch.arange(min(STARTING, len(train)), device=train.targets.device))
    x = chain.rows(few)
    if not isinstance(spread, str):
        return rescaled_weights(chain, x, spread=spread)
    if not fades(chain, x, few.targets):
        return None
    return rescaled_weights(chain, x, spread=SPREAD, offset=min(1.0, OFFSETS / (len(chain.layers) - 1)))


def fades(chain: Chain, x: Tensor, targets: Tensor) -> bool:
    """Return whether a sigmoid network that has learnt nothing lets the signal fade in some hidden layer.

    x: samples (n, d), float64. False where a hidden layer is narrow or no sigmoid, for which it was not found to help.
    """
    hidden = chain.layers[:-1]
    if not hidden or not all(layer.activation is SIGMOID and layer.linear.out_features >= WIDE for layer in hidden):
        return False
    outputs = chain.outputs(chain.weights(), x)
    wanted = target_rows(targets, outputs.shape[1])
    learnt = outputs.var(0, correction=0).sum() >= LEARNT**2 * wanted.var(0, correction=0).sum()
    return not bool(learnt) and min(spreads(chain, x)) < FADES
