"""Walking through the factors of a linear network, piece by piece, with what is known of the risk on each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.optimization.alternating.chain import Chain

from .grassmann import Moving, joined
from .leg import Kind, Leg
from .profile import State

RANK = 1e-10
"""Singular values below this fraction of the largest count as zero: rounding of double precision, with room."""


@dataclass(frozen=True)
class Factors:
    """F_1, ..., F_K whose product counts, F_1 at the narrower outer side; biases b_1, ..., b_K of the layers."""

    factors: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def put(self, new: dict[int, Tensor]) -> Factors:
        """Return these factors with some replaced."""
        return Factors(tuple(new.get(k, factor) for k, factor in enumerate(self.factors)), self.biases)


def factors_of(model: nn.Module, forward: bool) -> Factors:
    """Return the factors of a chain of linear layers, in double precision; forward: F_1 is the first layer.

    Otherwise the factors are the transposed layers from the last on.
    """
    layers = Chain.of(model).layers
    # The decompositions run on the processor, wherever the network is.
    weights = [layer.linear.weight.detach().cpu().double() for layer in layers]
    zeros = [torch.zeros(layer.linear.out_features, dtype=torch.float64) for layer in layers]
    biases = [
        zero if layer.linear.bias is None else layer.linear.bias.detach().cpu().double()
        for layer, zero in zip(layers, zeros, strict=True)
    ]
    return Factors(tuple(weights if forward else [weight.T for weight in reversed(weights)]), tuple(biases))


def state_of(model: nn.Module, factors: Factors, forward: bool) -> State:
    """Return the state of a network like `model` with these factors."""
    model = copy.deepcopy(model)
    chain = Chain.of(model)
    weights = factors.factors if forward else [factor.T for factor in reversed(factors.factors)]
    parts = zip(weights, factors.biases, chain.layers, strict=True)
    chain.load([torch.cat([weight, bias[:, None]], 1) if layer.bias else weight for weight, bias, layer in parts])
    return model.state_dict()


@dataclass(frozen=True)
class Piece:
    """A piece of the walk, s in [0, 1] -> factors; kind and bent as in `Leg`."""

    at: Callable[[float], Factors]
    kind: Kind
    bent: bool


def leg_of(piece: Piece, state: Callable[[Factors], State]) -> Leg:
    """Return the piece as a leg of a path between networks."""
    return Leg(lambda s: state(piece.at(s)), piece.kind, piece.bent)


def product(factors: Sequence[Tensor]) -> Tensor:
    """Return F_j ... F_1."""
    result = torch.eye(factors[0].shape[1], dtype=factors[0].dtype) if factors else torch.empty(0, 0)
    for factor in factors:
        result = factor @ result
    return result


class Walk:
    """The legs walked so far, and where one stands."""

    def __init__(self, start: Factors) -> None:
        self.now = start
        self.legs: list[Piece] = []

    def line(self, end: Factors, kind: Kind) -> None:
        """Walk on a straight line to `end`."""
        start = self.now

        def at(s: float) -> Factors:
            pairs = zip(start.factors, end.factors, strict=True)
            biases = zip(start.biases, end.biases, strict=True)
            return Factors(
                tuple(torch.lerp(one, other, s) for one, other in pairs),
                tuple(torch.lerp(one, other, s) for one, other in biases),
            )

        self.legs.append(Piece(at, kind, False))
        self.now = end

    def drop_hidden_biases(self, forward: bool) -> None:
        """Move what the hidden biases add into the last bias; at fixed weights that is linear in them, so constant."""
        if all(not bool(bias.any()) for bias in self.now.biases[:-1]):
            return
        weights = self.now.factors if forward else [factor.T for factor in reversed(self.now.factors)]
        whole = self.now.biases[0]
        for weight, bias in zip(weights[1:], self.now.biases[1:], strict=True):
            whole = weight @ whole + bias
        zeros = tuple(torch.zeros_like(bias) for bias in self.now.biases[:-1])
        self.line(Factors(self.now.factors, (*zeros, whole)), "constant")

    def raise_rank(self, j: int) -> None:
        """Give F_j ... F_1 full column rank along directions that F_{j+1} does not see."""
        before = product(self.now.factors[:j]) if j else torch.eye(self.now.factors[0].shape[1], dtype=torch.float64)
        here = self.now.factors[j] @ before
        left, values, right = torch.linalg.svd(here)
        size = here.shape[1]
        rank = int((values > RANK * max(float(values[0]), 1e-300)).sum())
        if rank == size:
            return
        seen = left[:, :rank] @ left[:, :rank].T
        self.line(self.now.put({j + 1: self.now.factors[j + 1] @ seen}), "constant")
        scale = float(values[:rank].mean()) if rank else 1.0
        added = scale * left[:, rank:size] @ right[rank:size] @ torch.linalg.pinv(before)
        self.line(self.now.put({j: self.now.factors[j] + added}), "constant")

    def raise_ranks(self) -> None:
        """Give all products F_j ... F_1 but the whole one full column rank."""
        for j in range(len(self.now.factors) - 1):
            self.raise_rank(j)

    def follow(self, goal: Factors) -> list[str]:
        """Bring all factors but the last to those of `goal`, the product unchanged; return what was in the way."""
        notes = []
        for j in range(len(self.now.factors) - 1):
            self.raise_rank(j)
            before = product(goal.factors[:j]) if j else torch.eye(goal.factors[0].shape[1], dtype=torch.float64)
            back = torch.linalg.pinv(before)
            moving = joined(self.now.factors[j] @ before, goal.factors[j] @ before)
            if moving is None:
                self._turn_sign(j)
                notes.append(f"layer {j + 1} has no spare dimension: the path passes a factor without full rank")
                moving = joined(self.now.factors[j] @ before, goal.factors[j] @ before)
                assert moving is not None
            self._carry(j, before, back, goal.factors[j], moving)
        return notes

    def _carry(self, j: int, before: Tensor, back: Tensor, target: Tensor, moving: Moving) -> None:
        start = self.now.factors[j]
        here = start @ before
        self.line(self.now.put({j + 1: self.now.factors[j + 1] @ here @ torch.linalg.pinv(here)}), "constant")
        standing, carried = self.now, self.now.factors[j + 1] @ here
        # The part of F_j that the layers before it cannot reach moves on a straight line.
        rest, rest_target = start - here @ back, target - target @ before @ back

        def at(s: float) -> Factors:
            matrix = moving(s)
            inner = target if s == 1 else matrix @ back + torch.lerp(rest, rest_target, s)
            return standing.put({j: inner, j + 1: carried @ torch.linalg.pinv(matrix)})

        self.legs.append(Piece(at, "constant", True))
        self.now = at(1.0)

    def _turn_sign(self, j: int) -> None:
        """Change the sign of det(F_j ... F_1), by way of a next factor that does not see one direction."""
        _, _, right = torch.linalg.svd(product(self.now.factors[j + 1 :]), full_matrices=True)
        blind = right[-1]
        flat = self.now.factors[j + 1] - torch.outer(self.now.factors[j + 1] @ blind, blind)
        self.line(self.now.put({j + 1: flat}), "convex")
        turned = self.now.factors[j] - 2 * torch.outer(blind, blind @ self.now.factors[j])
        self.line(self.now.put({j: turned}), "constant")
