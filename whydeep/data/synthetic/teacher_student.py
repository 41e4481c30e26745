"""A random network labels Gaussian inputs: another network can, in principle, find it again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.randomness import or_default

from .checks import at_least, non_negative, standard


def teacher_student(
    n: int = 2000,
    *,
    d: int = 10,
    width: int = 20,
    depth: int = 1,
    classes: int = 0,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Data:
    """Return x (n, d) from N(0, I), labelled by a random tanh network of `depth` hidden layers of `width`.

    Its weights are from N(0, 4 / fan_in), so that tanh is not nearly linear; it has no biases.
    classes 0: y (n, 1) is the output, standardised over the n samples, plus `noise` times N(0, 1): the noise is in
    units of the signal's standard deviation, and 1 / (1 + noise^2) of the variance can be explained.
    classes k >= 2: the class is the largest of k standardised outputs; with probability `noise` it is then replaced
    by one of the other classes, drawn uniformly. The network without noise errs on a fraction `noise`.
    Raises `ValueError` on sizes too small, on classes=1, and on a probability above 1.
    """
    at_least(2, n=n)
    at_least(1, d=d, width=width, depth=depth)
    non_negative(noise=noise)
    if classes == 1 or classes < 0 or (classes and noise > 1):
        raise ValueError(f"classes={classes}, noise={noise:g}; give 0 or at least 2 classes, and a probability")
    generator = or_default(generator)
    x = torch.randn(n, d, generator=generator)
    output = standard(_teacher(x, [width] * depth + [classes or 1], generator))
    name = f"teacher {'-'.join(map(str, [d, *[width] * depth, classes or 1]))}, noise {noise:g}"
    if not classes:
        return Data(x, output + noise * torch.randn(n, 1, generator=generator), name)
    y = output.argmax(1)
    wrong = torch.rand(n, generator=generator) < noise
    other = (y + torch.randint(1, classes, (n,), generator=generator)) % classes
    return Data(x, torch.where(wrong, other, y), name, classes=classes)


def _teacher(x: Tensor, widths: list[int], generator: torch.Generator) -> Tensor:
    signal = x
    for index, outgoing in enumerate(widths):
        fan_in = signal.shape[1]
        signal = signal @ torch.randn(fan_in, outgoing, generator=generator) * (2 / math.sqrt(fan_in))
        signal = signal if index == len(widths) - 1 else torch.tanh(signal)
    return signal
