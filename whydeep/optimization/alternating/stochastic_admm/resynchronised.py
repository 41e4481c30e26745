"""One pass of the stochastic solver: synchronise on a minibatch, step in all layers, repeat."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whydeep.core.loss import Loss
from whydeep.optimization.alternating.chain import Chain, Layer

from .running_gram import RunningGram, Whitening
from .state_step import state_map

if TYPE_CHECKING:
    from .stochastic_admm import StochasticADMM

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}
"""Fraction of the training that is done -> the factor of the step."""


@dataclass
class Block:
    """One layer at work: U = A W' + b, the moments of its inputs (None where they are whitened), and its momentum."""

    layer: Layer
    weight: Tensor
    bias: Tensor | None
    gram: RunningGram | None

    def __post_init__(self) -> None:
        self.weight_step = torch.zeros_like(self.weight)
        self.bias_step = torch.zeros_like(self.weight[:, 0])
        self.backward = self.weight

    def preactivation(self, below: Tensor) -> Tensor:
        """Return U (m, o)."""
        return below @ self.weight.T if self.bias is None else torch.addmm(self.bias, below, self.weight.T)

    def below(self, gradient: Tensor, damping: float, *, follow: bool) -> Tensor:
        """Return the multipliers (m, d) of the states below, given the gradients (m, o); `follow` renews their map."""
        if follow:
            self.backward = state_map(self.weight, damping)
        return gradient @ self.backward

    def take_in(self, gradient: Tensor, below: Tensor, solver: StochasticADMM, tau: float) -> None:
        """Average the step at these gradients (m, o) and inputs (m, d) into the momentum, and set `ahead`.

        ahead is what `move` adds: the next averaged step as far as it is known, so that the next gradients are taken
        where it leads.
        """
        mean = gradient.mean(0)
        slope = (gradient.T @ below).div_(len(below))
        direction = slope
        if self.gram is not None:
            if self.gram.centred:
                slope.addr_(mean, self.gram.mean, alpha=-1)
            direction = slope @ self.gram.inverse
        factor: float | Tensor = tau
        if solver.normed:
            # <D, G'(A - mu)/m> = tr D (C + delta I) D' >= tr D C D', the squared change of U summed over units.
            square = torch.dot(direction.view(-1), slope.view(-1)) / len(mean)
            # Rounding: a layer that gets no gradient has D = 0, and then the factor does not matter.
            factor = tau / square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()
        new, share = (direction.mul_(factor), mean * tau), 1 - solver.momentum
        self.weight_step.lerp_(new[0], share)
        self.bias_step.lerp_(new[1], share)
        self.ahead = self.weight_step.lerp(new[0], share), self.bias_step.lerp(new[1], share)

    def move(self, rate: float, forgetting: float) -> None:
        """Add `rate` times the averaged step, looking ahead."""
        weight_step, bias_step = self.ahead
        if self.gram is not None and forgetting:
            self.weight.mul_(1 - rate * rate * forgetting)
        self.weight.add_(weight_step, alpha=-rate)
        if self.bias is not None:
            self.bias.add_(bias_step, alpha=-rate)
            if self.gram is not None:  # b' = b + W mu moves by its own step, so b takes back what W's step does to it
                self.bias.addmv_(weight_step, self.gram.mean, alpha=rate)


class Passes:
    """The iteration: a sweep is one pass over minibatches in a random order."""

    def __init__(
        self,
        solver: StochasticADMM,
        chain: Chain,
        x: Tensor,
        labels: Tensor,
        loss: Loss,
        generator: torch.Generator,
    ) -> None:
        self.solver, self.chain, self.labels, self.loss, self.generator = solver, chain, labels, loss, generator
        self.whitening: Whitening | None = None
        self.blocks: list[Block] = []
        self.x = x
        # Changes of the output by different layers add up like independent ones: so does tau over all layers.
        assert solver.damping is not None  # see StochasticADMM.decided
        assert solver.forgetting is not None
        assert solver.output_ridge is not None
        assert solver.state_damping is not None
        self.state_damping = solver.state_damping
        self.damping, self.forgetting = solver.damping, solver.forgetting
        self.output_ridge, self.largest = solver.output_ridge, torch.zeros((), dtype=x.dtype, device=x.device)
        self.tau, self.done = solver.tau or 0.35 / math.sqrt(len(chain.layers)), 0
        self.minibatches = math.ceil(len(x) / solver.batch_size)
        self.start = chain.weights(x.dtype)
        with torch.no_grad():
            self.objective = float(loss(chain.outputs(self.start, x), labels).mean())

    def weights(self) -> tuple[Tensor, ...]:
        """Return W_i (outputs, inputs + 1) in the coordinates of the samples."""
        if not self.blocks:
            return self.start
        found = []
        for block in self.blocks:
            weight, bias = block.weight, block.bias
            if block.gram is None:
                assert self.whitening is not None
                weight, bias = self.whitening.back(weight, bias)
            found.append(weight.clone() if bias is None else torch.cat([weight, bias[:, None]], 1))
        return tuple(found)

    def monitor(self) -> Mapping[str, float]:
        """Return the mean over the last pass of each minibatch's loss before its step; at the start the risk."""
        return {"objective": self.objective}

    def restart(self, weights: tuple[Tensor, ...]) -> bool:
        """Begin the pass again at these weights, without momentum and with half of tau."""
        self.tau /= 2
        self.start, self.blocks = weights, []
        self.largest = torch.zeros_like(self.largest)  # the pass that broke down may have left any size
        return True

    def _begin(self) -> list[Block]:
        """Whiten the samples, once: in the first pass, so that its time is counted; and place the weights."""
        solver, blocks = self.solver, []
        if self.whitening is None:
            self.whitening = Whitening.of(self.x, damping=solver.data_damping, centred=self.chain.layers[0].bias)
            self.x = self.whitening.samples(self.x)
        for index, (layer, whole) in enumerate(zip(self.chain.layers, self.start, strict=True)):
            weight, bias = layer.without_bias(whole).clone(), whole[:, -1].clone() if layer.bias else None
            gram = None
            if index:
                gram = RunningGram(
                    damping=self.damping, floor=solver.floor, decay=solver.gram_decay, centred=layer.bias
                )
            else:
                weight, bias = self.whitening.into(weight, bias)
            blocks.append(Block(layer, weight, bias, gram))
        return blocks

    def sweep(self) -> None:
        """Make one pass; raises `ArithmeticError` when a loss or the inverse of a Gram matrix is not finite."""
        self.blocks = self.blocks or self._begin()
        solver = self.solver
        order = torch.randperm(len(self.labels), generator=self.generator, device=self.generator.device)
        order = order.to(self.labels.device)
        total = torch.zeros((), dtype=torch.float64, device=order.device)
        for number, chosen in enumerate(torch.tensor_split(order, self.minibatches)):
            done = (self.done + number / self.minibatches) / solver.epochs
            follow = number % solver.gram_every == 0
            if follow and not bool(torch.isfinite(total)):
                raise ArithmeticError("the loss of a minibatch is not finite")
            total += self._step(
                self.x[chosen], self.labels[chosen], rate=SCHEDULES[solver.schedule](done), follow=follow
            )
        self.objective = float(total) / len(order)
        self.done += 1

    def _step(self, x: Tensor, labels: Tensor, *, rate: float, follow: bool) -> Tensor:
        """Synchronise, and move every W once; return the sum of the losses before it."""
        states, slopes = [x], []
        for block in self.blocks:
            value, slope = block.layer.activation.value_and_slope(block.preactivation(states[-1]))
            states.append(value)
            slopes.append(slope)
        outputs = states.pop().requires_grad_()
        with torch.enable_grad():
            losses = self.loss(outputs, labels)
            (gradient,) = torch.autograd.grad(losses.sum(), outputs)
        self.largest = torch.maximum(self.largest, root_mean_square(gradient))
        gradient = gradient + (self.output_ridge * self.largest) * outputs.detach()
        for index in range(len(self.blocks) - 1, -1, -1):
            block = self.blocks[index]
            if self.solver.normed:
                # Layer by layer, so that no product of small numbers underflows.
                gradient /= root_mean_square(gradient).clamp_min(torch.finfo(x.dtype).tiny)
            if block.gram is not None and follow:
                block.gram.update(states[index])
            block.take_in(gradient, states[index], self.solver, self.tau)
            if index:
                gradient = block.below(gradient, self.state_damping, follow=follow).mul_(slopes[index - 1])
            block.move(rate, self.forgetting)
        return losses.detach().sum()


def root_mean_square(values: Tensor) -> Tensor:
    """Return the root of the mean square of all entries, a scalar."""
    size: Tensor = torch.linalg.vector_norm(values)
    return size / math.sqrt(values.numel())
