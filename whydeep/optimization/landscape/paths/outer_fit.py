"""The output weights of a two-layer network for given units: the best ones, with all units or with a part of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import scipy.linalg
import torch
from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.optimization.alternating.chain import Chain

from .unit_merging import merged


@dataclass(frozen=True)
class Layers:
    """rows (m, d + 1): weights and bias of each hidden unit; outer (k, m + 1): output weights and bias."""

    rows: Tensor
    outer: Tensor


class OuterFit:
    """The risk of two-layer networks and the best output weights for given units, in double precision."""

    def __init__(self, problem: Problem, chain: Chain) -> None:
        self._problem = problem
        activation = chain.layers[0].activation
        self._activation: Callable[[Tensor], Tensor] = activation.value
        self._homogeneous = activation.linear or activation.left is not None  # s(c u) = c s(u) for c > 0
        self.level = 0.0  # what the risk need not fall below
        self._bias = (chain.layers[0].bias, chain.layers[1].bias)
        # The decompositions run on the processor, wherever the network is.
        self._x = chain.rows(problem.train).cpu()
        self._y = problem.train.targets.cpu()

    def units(self, layers: Layers) -> Tensor:
        """Return what the output weights multiply, (n, m) or with a last column of ones (n, m + 1)."""
        x = torch.cat([self._x, torch.ones_like(self._x[:, :1])], 1) if self._bias[0] else self._x
        hidden = self._activation(x @ layers.rows.T)
        return torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1) if self._bias[1] else hidden

    def risk(self, layers: Layers) -> float:
        """Return the training risk."""
        return float(self._risk(self.units(layers), layers.outer))

    def _risk(self, units: Tensor, outer: Tensor) -> Tensor:
        y = self._y.double() if self._y.is_floating_point() else self._y
        return self._problem.per_sample(units @ outer.T, y).mean()

    def best(self, layers: Layers, size: int) -> tuple[Layers, list[int]]:
        """Return the network refitted with `size` of its units (the others have output weight 0), and which.

        Tried: the strongest units, those that pivoted QR finds most independent, and near-parallel units merged into
        representatives, whose refit starts from the merged weights and ends no higher.
        """
        units = self.units(layers)
        width = len(layers.rows)
        strength = units[:, :width].square().mean(0).sqrt() * layers.outer[:, :width].norm(dim=0)
        candidates = [(strength.argsort(descending=True)[:size].tolist(), layers.outer)]
        if 0 < size < width:
            _, pivots = scipy.linalg.qr(units[:, :width].numpy(), mode="r", pivoting=True)
            candidates.append((pivots[:size].tolist(), layers.outer))
            gathered = merged(layers.rows, layers.outer, size, homogeneous=self._homogeneous)
            candidates.append((gathered.chosen, gathered.outer))
        fitted = [(self._refit(units, start, sorted(chosen)), sorted(chosen)) for chosen, start in candidates]
        outer, chosen = min(fitted, key=lambda pair: float(self._risk(units, pair[0])))
        return Layers(layers.rows, outer), chosen

    def _refit(self, units: Tensor, outer: Tensor, chosen: list[int]) -> Tensor:
        columns = [*chosen, *range(units.shape[1] - self._bias[1], units.shape[1])]
        result = torch.zeros_like(outer)
        if not columns:
            return result
        start = outer[:, columns]
        if self._problem.per_sample.name == "squared":
            y = self._y
            target = y.double() if y.is_floating_point() else torch.nn.functional.one_hot(y, len(outer)).double()
            # Directions below 1e-6 of the largest are left out: weights that only noise asks for would be huge.
            fit = torch.linalg.lstsq(units[:, columns], target.flatten(1), rcond=1e-6, driver="gelsd").solution.T
        else:
            fit = self._descend(units[:, columns], start)
        result[:, columns] = self._shortened(units[:, columns], start, fit)
        return result

    def _shortened(self, units: Tensor, start: Tensor, fit: Tensor) -> Tensor:
        """Return the first point on the way from `start` to `fit` whose risk is at most the level, else the lower end.

        The risk is convex on the way, so that halving the interval finds it; it keeps the path short.
        """
        low, high = 0.0, 1.0
        if float(self._risk(units, fit)) > self.level:
            # Whatever the solver did: it may not be worse than what was there.
            return fit if float(self._risk(units, fit)) <= float(self._risk(units, start)) else start
        if float(self._risk(units, start)) <= self.level:
            return start
        for _ in range(20):
            middle = (low + high) / 2
            reached = float(self._risk(units, torch.lerp(start, fit, middle))) <= self.level
            low, high = (low, middle) if reached else (middle, high)
        return torch.lerp(start, fit, high)

    def _descend(self, units: Tensor, start: Tensor) -> Tensor:
        weights = start.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([weights], max_iter=100, history_size=20, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            with torch.enable_grad():
                loss = self._risk(units, weights)
                (weights.grad,) = torch.autograd.grad(loss, [weights])
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        fit = weights.detach()
        return fit if bool(torch.isfinite(fit).all()) else start
