"""A path between two linear networks on which the risk never exceeds the worse end: level sets are connected."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.loss import NAMED
from whydeep.core.problem import Problem
from whydeep.optimization.alternating.chain import Chain

from .grassmann import joined
from .leg import Kind, Leg, Path
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


def through_linear_layers(
    problem: Problem,
    a: nn.Module,
    b: nn.Module,
    *,
    data: Data | None = None,
    points: int = 5,
    **rest: Any,
) -> Path:
    """Return a path between two linear networks W_K ... W_1 x on which the risk is at most that of the worse end.

    Where every hidden layer is wider than the narrower of inputs and outputs, n_k > min(n_0, n_K): layer after layer,
    from the narrower side on, the factor of the first network moves to that of the second through matrices of full
    column rank (`joined`: a Grassmann geodesic and the general linear group in it), while the next factor is multiplied
    by the inverse, so that the product, and with it the risk, stays as it is. At last one factor is left, in which the
    risk is convex: a straight line. So the largest risk on the path is that at the ends, `Path.certified`.
    Factors without full rank first get it along directions that the next factor does not see; hidden biases are moved
    into the last one, which changes nothing either.

    Where a hidden layer is exactly as wide as the narrower side and the determinants differ in sign, the path has to
    pass a factor without full rank: the next factor is projected along its weakest direction (convex, possibly
    upwards), the determinant is turned there, and the certified maximum may exceed both ends.
    Source: Freeman and Bruna (2017), proposition 2.2; Venturi, Bandeira and Bruna (2019) for the quotient by the group;
    the lecture's slide asks n_k > min. With n_k >= min, as the paper's text is remembered, it fails: R = 1/2 (w_2 w_1
    - 1)^2 below 1/2 consists of w_1 > 0 and w_1 < 0. Construction written for this library.

    Raises `InputError` when the network is not a chain of linear layers, has hidden biases without one at the output, a
    hidden layer narrower than both sides, or a loss not known to be convex.
    Cost: about 3 K SVDs, and a pass over the data a position.
    """
    chain = Chain.of(problem.model, solver="the path of linear networks")
    _check(problem, chain)
    forward = chain.layers[0].linear.in_features <= chain.layers[-1].linear.out_features
    start, goal = (_factors(each, forward) for each in (a, b))
    up, to = _Walk(start), _Walk(goal)
    if len(chain.layers) > 1:
        for walk in (up, to):
            walk.drop_hidden_biases(forward)
        to.raise_ranks()
        notes = up.follow(to.now)
    else:
        notes = []
    up.line(to.now, "convex")

    def state(factors: Factors) -> State:
        return _state(problem.model, factors, forward)

    legs = [_leg(leg, state) for leg in up.legs] + [_leg(leg, state).reversed() for leg in reversed(to.legs)]
    remark = "; ".join(notes) or "every leg is constant or convex: the risk is at most that of the worse end"
    return Path.of("linear", problem, legs, data=data, points=points, remark=remark, **rest)


def _check(problem: Problem, chain: Chain) -> None:
    for index, layer in enumerate(chain.layers):
        if not layer.activation.linear:
            raise InputError(
                f"the network has the activation {layer.activation.name} after layer {index + 1}",
                'give a network of linear layers only, or method="relu"',
            )
    if problem.per_sample.name not in NAMED:
        raise InputError(
            f"it is not known that the loss {problem.per_sample.name} is convex in the outputs",
            f"give one of {', '.join(sorted(NAMED))}",
        )
    linears = [layer.linear for layer in chain.layers]
    narrow = min(linears[0].in_features, linears[-1].out_features)
    for index, linear in enumerate(linears[:-1]):
        if linear.out_features < narrow:
            raise InputError(
                f"hidden layer {index + 1} has width {linear.out_features} and the narrower side {narrow}",
                f'give hidden layers at least {narrow} wide, or method="dynamic_string"',
            )
    if linears[-1].bias is None and any(linear.bias is not None for linear in linears[:-1]):
        raise InputError("a hidden layer has a bias and the output has none", "give the output layer one")


def _factors(model: nn.Module, forward: bool) -> Factors:
    layers = Chain.of(model).layers
    # The decompositions run on the processor, wherever the network is.
    weights = [layer.linear.weight.detach().cpu().double() for layer in layers]
    zeros = [torch.zeros(layer.linear.out_features, dtype=torch.float64) for layer in layers]
    biases = [
        zero if layer.linear.bias is None else layer.linear.bias.detach().cpu().double()
        for layer, zero in zip(layers, zeros, strict=True)
    ]
    return Factors(tuple(weights if forward else [weight.T for weight in reversed(weights)]), tuple(biases))


def _state(model: nn.Module, factors: Factors, forward: bool) -> State:
    model = copy.deepcopy(model)
    chain = Chain.of(model)
    weights = factors.factors if forward else [factor.T for factor in reversed(factors.factors)]
    parts = zip(weights, factors.biases, chain.layers, strict=True)
    chain.load([torch.cat([weight, bias[:, None]], 1) if layer.bias else weight for weight, bias, layer in parts])
    return model.state_dict()


@dataclass(frozen=True)
class _Piece:
    at: Any
    kind: Kind
    bent: bool


def _leg(piece: _Piece, state: Any) -> Leg:
    return Leg(lambda s: state(piece.at(s)), piece.kind, piece.bent)


def _product(factors: Sequence[Tensor]) -> Tensor:
    """Return F_j ... F_1."""
    result = torch.eye(factors[0].shape[1], dtype=factors[0].dtype) if factors else torch.empty(0, 0)
    for factor in factors:
        result = factor @ result
    return result


class _Walk:
    """The legs walked so far, and where one stands."""

    def __init__(self, start: Factors) -> None:
        self.now = start
        self.legs: list[_Piece] = []

    def line(self, end: Factors, kind: Kind) -> None:
        start = self.now

        def at(s: float) -> Factors:
            pairs = zip(start.factors, end.factors, strict=True)
            biases = zip(start.biases, end.biases, strict=True)
            return Factors(
                tuple(torch.lerp(one, other, s) for one, other in pairs),
                tuple(torch.lerp(one, other, s) for one, other in biases),
            )

        self.legs.append(_Piece(at, kind, False))
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
        before = _product(self.now.factors[:j]) if j else torch.eye(self.now.factors[0].shape[1], dtype=torch.float64)
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
        for j in range(len(self.now.factors) - 1):
            self.raise_rank(j)

    def follow(self, goal: Factors) -> list[str]:
        """Bring all factors but the last to those of `goal`, the product unchanged; return what was in the way."""
        notes = []
        for j in range(len(self.now.factors) - 1):
            self.raise_rank(j)
            before = _product(goal.factors[:j]) if j else torch.eye(goal.factors[0].shape[1], dtype=torch.float64)
            back = torch.linalg.pinv(before)
            moving = joined(self.now.factors[j] @ before, goal.factors[j] @ before)
            if moving is None:
                self._turn_sign(j)
                notes.append(f"layer {j + 1} has no spare dimension: the path passes a factor without full rank")
                moving = joined(self.now.factors[j] @ before, goal.factors[j] @ before)
                assert moving is not None
            self._carry(j, before, back, goal.factors[j], moving)
        return notes

    def _carry(self, j: int, before: Tensor, back: Tensor, target: Tensor, moving: Any) -> None:
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

        self.legs.append(_Piece(at, "constant", True))
        self.now = at(1.0)

    def _turn_sign(self, j: int) -> None:
        """Change the sign of det(F_j ... F_1), by way of a next factor that does not see one direction."""
        _, _, right = torch.linalg.svd(_product(self.now.factors[j + 1 :]), full_matrices=True)
        blind = right[-1]
        flat = self.now.factors[j + 1] - torch.outer(self.now.factors[j + 1] @ blind, blind)
        self.line(self.now.put({j + 1: flat}), "convex")
        turned = self.now.factors[j] - 2 * torch.outer(blind, blind @ self.now.factors[j])
        self.line(self.now.put({j: turned}), "constant")
