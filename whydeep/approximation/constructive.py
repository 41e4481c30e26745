"""Exact constructions: deep networks whose weights are written down, not trained.

Every number in them is a dyadic rational, so in float64 they compute without any rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DEEPEST = 25
"""The deepest squaring network that float64 can hold: see `squaring`."""


def tooth(x: Tensor) -> Tensor:
    """Return the tooth g(x) = 2 r(x) - 4 r(x - 1/2) + 2 r(x - 1), r(z) = max(0, z).

    On [0, 1] it is 2x up to 1/2 and 2 - 2x from there; outside it is 0. Yarotsky (2017), Proposition 2.

    >>> tooth(torch.tensor([-1.0, 0.25, 0.5, 1.0, 3.0])).tolist()
    [0.0, 0.5, 1.0, 0.0, 0.0]
    """
    return 2 * torch.relu(x) - 4 * torch.relu(x - 0.5) + 2 * torch.relu(x - 1)


def squaring(depth: int, *, coefficients: tuple[float, float, float] = (2.0, -4.0, 2.0)) -> nn.Sequential:
    """Return the ReLU network f_m that approximates x^2 on [0, 1], m = `depth` hidden layers.

        f_m(x) = x - sum_{s=1..m} g_s(x) / 4^s,   g_s = the tooth composed s times

    f_m is the piecewise linear interpolant of x^2 on the grid k 2^-m, so f_m >= x^2 and
    sup_{[0,1]} |f_m(x) - x^2| = 4^-(m+1), attained at every odd multiple of 2^-(m+1).
    Outside [0, 1] the teeth vanish and f_m(x) = x for x > 1, so nothing is promised there.

    Maps (n, 1) float64 to (n, 1). Four units a layer, no skips: three make the tooth, the fourth carries the partial
    sum f_s, which is >= x^2 >= 0, so its ReLU never cuts it. Parameters: 8 + 20 (m - 1) + 5 = 20 m - 7; for m = 0 the
    identity, 2 parameters.
    coefficients: of the tooth; anything but (2, -4, 2) damages the construction (to see a check of it fail).

    Raises `ValueError` for m < 0 and for m > 25: the square of an odd multiple of 2^-(m+1) has 2 (m + 1) bits, and
    float64 has 53, so from m = 26 on the error could not be measured.

    Yarotsky (2017), "Error bounds for approximations with deep ReLU networks", Propositions 2 and 3. The paper lets
    the partial sums skip layers; here a unit carries them, so that the network is a plain `nn.Sequential`.

    >>> f = squaring(3)
    >>> sum(p.numel() for p in f.parameters())
    53
    >>> x = torch.tensor([[1 / 16]], dtype=torch.float64)
    >>> (f(x) - x**2).item() == 4**-4
    True
    """
    if not 0 <= depth <= DEEPEST:
        raise ValueError(
            f"depth is {depth}; give 0 to {DEEPEST}: beyond that the squares need more than the 53 bits of float64"
        )
    if depth == 0:
        return nn.Sequential(_dense([[1.0]], [0.0]))
    layers: list[nn.Module] = [_dense([[1.0]] * 4, [0.0, -0.5, -1.0, 0.0]), nn.ReLU()]
    tooth_row = [*coefficients, 0.0]
    for level in range(1, depth + 1):
        carry_row = [-c / 4.0**level for c in coefficients] + [1.0]  # f_level = f_(level-1) - g_level / 4^level
        if level == depth:
            layers.append(_dense([carry_row], [0.0]))
        else:
            layers += [_dense([tooth_row] * 3 + [carry_row], [0.0, -0.5, -1.0, 0.0]), nn.ReLU()]
    return nn.Sequential(*layers)


def sawtooth(layers: int, *, coefficients: tuple[float, float] = (2.0, -4.0)) -> nn.Sequential:
    """Return the ReLU network of k = `layers` hidden layers with two units each that computes the sawtooth g_k.

    g_k = g composed k times with g(x) = 2 r(x) - 4 r(x - 1/2), the tooth on [0, 1]. On [0, 1] it has exactly 2^k linear
    pieces, where one hidden layer would need 2^k - 1 units. Telgarsky (2015), "Representation benefits of deep
    feedforward networks", Theorem 1.1.

    Maps (n, 1) float64 to (n, 1). Parameters: 4 + 6 (k - 1) + 3.
    coefficients: of the tooth; anything but (2, -4) damages the construction.
    Raises `ValueError` for k < 1.

    >>> sawtooth(2)(torch.tensor([[0.125], [0.25], [0.5]], dtype=torch.float64)).flatten().tolist()
    [0.5, 1.0, 0.0]
    """
    if layers < 1:
        raise ValueError(f"layers is {layers}; a sawtooth needs at least 1")
    row, biases = list(coefficients), [0.0, -0.5]
    network: list[nn.Module] = [_dense([[1.0], [1.0]], biases), nn.ReLU()]
    for _ in range(layers - 1):
        network += [_dense([row, row], biases), nn.ReLU()]
    return nn.Sequential(*network, _dense([row], [0.0]))


def _dense(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    # Made on "meta": no random numbers are drawn for weights that are set at once.
    layer = nn.Linear(len(weight[0]), len(weight), device="meta")
    layer.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
    layer.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))
    return layer
