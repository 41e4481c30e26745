"""What processes that train by ADMM tell each other, and how the time of a sweep falls with their number."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from whydeep.optimization.alternating.chain import Chain


@dataclass(frozen=True)
class Shapes:
    """The sizes that decide both: (outputs, inputs + bias) of every layer, and the bytes of a number of the states."""

    layers: tuple[tuple[int, int], ...]
    itemsize: int = 4

    @classmethod
    def of(cls, chain: Chain, dtype: torch.dtype | None = None) -> Shapes:
        """Return the shapes of a network's layers; dtype: of the states, None is that of the network."""
        layers = tuple((layer.linear.out_features, layer.linear.in_features + layer.bias) for layer in chain.layers)
        return cls(layers, (dtype or chain.dtype).itemsize)

    @classmethod
    def of_widths(cls, *widths: int) -> Shapes:
        """Return the shapes of a perceptron with these widths, biases and states in single precision."""
        return cls(tuple((outputs, inputs + 1) for inputs, outputs in pairwise(widths)))


def bytes_of_a_sweep(shapes: Shapes, *, first: bool = False, bias: bool = True) -> int:
    """Return the bytes that each process hands to the collective operations in a sweep of `ADMM(update="linearised")`.

    With b outputs and a inputs (the bias among them) a layer, N layers, smooth activations:

        8 sum_i (a_i b_i + a_i (a_i + 1)/2)     products G'A and the lower triangles of A'A, float64, one sum
        8 (2 N)                                 bounds of B, one maximum
        s sum_i a_i b_i                         steps of the weights, each from the process that solved for it
        s sum_{i>1} (a_i - bias) b_i            responses of the states, likewise; s bytes a number
        8 (sum_i a_i b_i + 3)                   residuals of the weights and three sums that are watched, one sum
        8 (6 + 1 + 1)                           risk and error, whether a step broke down, whether to stop

    The Gram matrix of the samples does not change: its triangle travels in the first sweep only. bias: whether the
    layers have one. Behind a kink every trial of shortened steps sends 8 bytes a unit more.
    A ring moves 2 (R - 1)/R times as much through each of R processes for a sum, and once for what is handed out.
    Checked against the bytes counted in a run, see `distributed.Processes.sent`.

    >>> bytes_of_a_sweep(Shapes.of_widths(784, 300, 300, 300, 10)) / 1e6
    10.205176
    """
    return _summed(shapes, first=first) + _handed_out(shapes, bias=bias)


def _summed(shapes: Shapes, *, first: bool = False) -> int:
    products = sum(outputs * inputs for outputs, inputs in shapes.layers)
    triangles = sum(inputs * (inputs + 1) // 2 for _, inputs in shapes.layers[0 if first else 1 :])
    return 8 * (2 * products + triangles + 2 * len(shapes.layers) + 3 + 6 + 2)


def _handed_out(shapes: Shapes, *, bias: bool = True) -> int:
    products = sum(outputs * inputs for outputs, inputs in shapes.layers)
    return shapes.itemsize * (products + sum(outputs * (inputs - bias) for outputs, inputs in shapes.layers[1:]))


def operations_of_a_sample(shapes: Shapes) -> float:
    """Return the operations of a sweep that fall to each sample: 2 a b a product of a layer, a^2 its Gram matrix.

    Eleven products a hidden state's layer, five of them for what is watched between the sweeps: six of the sweep, see
    `admm_weights` and `admm_states`, two of the risk and the watched Lagrangian's pre-activation, three of residuals.
    """
    total = 0.0
    for index, (outputs, inputs) in enumerate(shapes.layers):
        total += 2.0 * inputs * outputs * (11 if index else 7) + (inputs**2 if index else 0)
    return total


def operations_of_the_solves(shapes: Shapes, processes: int) -> float:
    """Return the operations of the busiest process on what no sample enters: Cholesky factors and their use.

    A layer's weights take a^3/3 + 2 a^2 b, its response as much with the smaller side m of W in place of a, and 2 m a b
    for W W' or W'W. Both are dealt out layer by layer, as `distributed.dealt` does: unlike the work on samples they do
    not shrink with the shares. On one machine the layers take turns. For 60,000 samples in 784-3x1500-10 all solves are
    0.7 % of the operations of a sweep, so that two threads, a layer each, could not gain half a per cent.
    """
    weights = [inputs**3 / 3 + 2.0 * inputs**2 * outputs for outputs, inputs in shapes.layers]
    responses = []
    for outputs, inputs in shapes.layers[1:]:
        small = min(outputs, inputs)
        responses.append(small**3 / 3 + 4.0 * small * inputs * outputs)
    return sum(max(sum(costs) / processes, max(costs)) for costs in (weights, responses) if costs)


@dataclass(frozen=True)
class Machine:
    """Rates of one process: of products in the states' type and of solves, operations a second; of a link, bytes."""

    products: float
    solves: float
    link: float
    latency: float = 5e-5
    """Seconds a message takes beside its bytes, for each doubling of the number of processes."""


def seconds_of_a_sweep(shapes: Shapes, samples: int, processes: int, machine: Machine) -> float:
    """Return T(R) = F/(R P) + S(R) + bytes/BW, the model of a sweep's time on R processes.

    F/P: `operations_of_a_sample` for all samples at the rate of products. S(R): `operations_of_the_solves` at theirs.
    bytes/BW: over the link, 2 (R - 1)/R times what is summed and once what is handed out, in 2 N + 5 messages whose
    latency grows like log2 R; nothing for one process.

    >>> shapes, machine = Shapes.of_widths(784, 300, 300, 300, 10), Machine(products=5e10, solves=2e10, link=1e9)
    >>> one, eight = (seconds_of_a_sweep(shapes, 60_000, count, machine) for count in (1, 8))
    >>> 0.8 < one / (8 * eight) < 1
    True
    """
    work = samples * operations_of_a_sample(shapes) / (processes * machine.products)
    solves = operations_of_the_solves(shapes, processes) / machine.solves
    if processes == 1:
        return work + solves
    rounds = (processes - 1).bit_length()
    sent = 2 * (processes - 1) / processes * _summed(shapes) + _handed_out(shapes)
    messages = 2 * len(shapes.layers) + 5
    return work + solves + sent / machine.link + messages * rounds * machine.latency
