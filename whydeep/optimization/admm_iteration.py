"""ADMM at work: the iterate of one training, for the loop that all alternating methods share and for looking at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.problem import Problem

from .admm_parts import Options, parts_of
from .admm_sweep import sweep_parts
from .alternating import data_norm
from .chain import Chain
from .gram import automatic_ridge
from .lagrangian import Lagrangian, State
from .majoriser import CONSTANTS
from .proximal import output_loss, target_rows

if TYPE_CHECKING:
    from .admm import ADMM


class ADMMIteration:
    """The variables of one training, from the forward pass at the chain's weights and multipliers zero.

    lagrangian: the augmented Lagrangian with its constants. state: the present iterate, which a sweep changes in place.
    """

    def __init__(self, solver: ADMM, problem: Problem, chain: Chain, train: Data) -> None:
        layers, dtype = len(chain.layers), solver.dtype or chain.dtype
        x = chain.rows(train, dtype)
        ridge = solver.ridge
        if isinstance(ridge, str):
            ridge = automatic_ridge(len(x), classes=train.classes is not None)
        self.lagrangian = Lagrangian(
            chain,
            output_loss(problem),
            target_rows(train.targets, chain.layers[-1].linear.out_features),
            ridges=_by_layer("ridge", ridge, layers),
            betas=_by_layer("beta", solver.beta, layers),
        )
        self.options = Options(
            constant=CONSTANTS[solver.constant],
            exact=solver.update == "exact",
            relaxation=solver.over_relaxation,
        )
        self.scale = data_norm(x, self.lagrangian.targets)
        self._block_size = solver.block_size
        self._grams: dict[int, Tensor] = {}
        self._start(chain.weights(dtype), x)

    def _start(self, weights: tuple[Tensor, ...], x: Tensor) -> None:
        self.state = State.feasible(self.lagrangian.chain, weights, x)
        self._parts = parts_of(self.state, self.lagrangian.targets, self._block_size)

    def sweep(self) -> None:
        """Update every W_i, V_i and Lambda_i once; raises `ArithmeticError` where a step breaks down."""
        weights = sweep_parts(self.lagrangian, self._parts, self.state.weights, self.options, grams=self._grams)
        self.state = replace(self.state, weights=weights)

    def weights(self) -> tuple[Tensor, ...]:
        """Return the present W_1..W_N."""
        return self.state.weights

    def monitor(self) -> dict[str, float]:
        """Return the augmented Lagrangian and the residuals of the KKT conditions, relative to [X, 1, Y]."""
        residuals = self.lagrangian.residuals(self.state)
        return {
            "objective": float(self.lagrangian.value(self.state)),
            "kkt": residuals.norm / self.scale,
            "feasibility": residuals.infeasibility / self.scale,
        }

    def restart(self, weights: tuple[Tensor, ...]) -> bool:
        """Start again from the forward pass at `weights`, multipliers zero, with all beta doubled."""
        # A larger penalty keeps states and weights closer to where the layers agree: the method moves more slowly.
        self.lagrangian = replace(self.lagrangian, betas=tuple(2 * beta for beta in self.lagrangian.betas))
        self._start(weights, self.state.states[0])
        return True


def _by_layer(name: str, value: float | tuple[float, ...], layers: int) -> tuple[float, ...]:
    values = value if isinstance(value, tuple) else (value,) * layers
    if len(values) != layers:
        raise ValueError(f"{name} has {len(values)} entries for {layers} layers; give one each, or one number for all")
    return values
