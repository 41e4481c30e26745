"""Paths between linear networks with a bottleneck: modulo invertible matrices their level sets are connected, too."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.optimization.alternating.chain import Chain

from .grassmann import joined, polar
from .leg import Path
from .linear_walk import RANK, Factors, Piece, Walk, factors_of, leg_of, product, state_of
from .profile import State


def through_bottleneck(
    problem: Problem, chain: Chain, a: nn.Module, b: nn.Module, *, data: Data | None, points: int, **rest: Any
) -> Path:
    """Return a path between two linear networks whose narrowest hidden layer has r < min(n_0, n_K) units.

    For the squared loss. The narrowest layer cuts the network into W_K ... W_1 = L R, R (r, n_0). With L at its least
    squares the risk depends on the subspace that R has in the whitened inputs alone, a point V of the Grassmannian:
    1/2 (tr Syy - tr P_V M), M = Sxx^(-1/2) Sxy Syx Sxx^(-1/2). From an end: L moves to its least squares (convex); V
    moves on the geodesic to the span U of r leading eigenvectors of M, which is monotone: principal vectors of V are
    cos t u_i + sin t w_i with w_i in the orthogonal complement of U, which M leaves alone, so tr P_V M = sum
    cos^2 t_i u_i'M u_i + sin^2 t_i w_i'M w_i rises as every t_i falls. No assumption on the data's covariances is
    made. Both ends so come down to a global minimum, where L and R of the two differ by an invertible (r, r) matrix:
    modulo GL(r) they are joined, N_u = 1 for all u. In the weights GL(r) has two parts. If the determinants agree a
    path in it is constant; if not, the least way to turn the sign leads u_r over u_{r+1} to -u_r, up to
    R* + (lambda_r - lambda_{r+1})/2 (two layers: no path between them stays below that, since on the way some direction
    of V is orthogonal to U). The other layers follow as in `through_linear_layers`.
    So every leg is constant, convex or monotone, and `Path.certified` is the largest risk.
    Source: lecture, "Group Symmetries"; Venturi, Bandeira and Bruna (2019). Construction written for this library.

    Raises `InputError` when the loss is not squared, or the samples span r dimensions or fewer.
    Cost: as `through_linear_layers`.
    """
    if problem.per_sample.name != "squared":
        raise InputError(
            f"a hidden layer is narrower than inputs and outputs, and the loss is {problem.per_sample.name}",
            'give the squared loss, wider layers, or method="dynamic_string"',
        )
    widths = [layer.linear.out_features for layer in chain.layers[:-1]]
    cut = _Cut(widths.index(min(widths)) + 1, min(widths), _Scene.of(problem, chain, min(widths)))
    up, to = (Walk(factors_of(each, True)) for each in (a, b))
    for walk in (up, to):
        _descend(walk, cut)
    remark = _meet(up, to.now, cut)

    def state(factors: Factors) -> State:
        return state_of(problem.model, factors, True)

    legs = [leg_of(leg, state) for leg in up.legs] + [leg_of(leg, state).reversed() for leg in reversed(to.legs)]
    return Path.of("linear", problem, legs, data=data, points=points, remark=remark, **rest)


@dataclass(frozen=True)
class _Scene:
    """The data in whitened coordinates z of the inputs, mean z z^T = I: x = back z, z = white x for the samples.

    cross: Syz (dy, rho). leading: (rho, rho) eigenvectors of M in columns, eigenvalues (rho,) descending.
    centred: with an output bias both are taken about their means.
    """

    white: Tensor
    back: Tensor
    cross: Tensor
    leading: Tensor
    eigenvalues: Tensor
    means: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, problem: Problem, chain: Chain, rank: int) -> _Scene:
        x = chain.rows(problem.train).cpu()
        y = problem.train.targets.cpu()
        y = y.double() if y.is_floating_point() else nn.functional.one_hot(y, problem.train.classes or 0).double()
        means = (x.mean(0), y.mean(0)) if chain.layers[-1].bias else None
        if means is not None:
            x, y = x - means[0], y - means[1]
        left, values, right = torch.linalg.svd(x, full_matrices=False)
        size = int((values > RANK * max(float(values[0]), 1e-300)).sum())
        if size <= rank:
            raise InputError(
                f"the samples span {size} dimensions and the narrowest layer has {rank} units",
                "give samples that span more, or a narrower layer",
            )
        scale = values[:size] / math.sqrt(len(x))
        cross = y.T @ left[:, :size] / math.sqrt(len(x))
        _, strengths, leading = torch.linalg.svd(cross, full_matrices=True)
        eigenvalues = torch.zeros(size, dtype=x.dtype)
        eigenvalues[: len(strengths)] = strengths.square()
        return cls(right[:size] / scale[:, None], right[:size].T * scale, cross, leading.T, eigenvalues, means)


@dataclass(frozen=True)
class _Cut:
    """The two sides of the bottleneck as chains that begin there: 0 is R^T = W_1^T ... W_place^T, 1 is W_K ... .

    rank: units of the bottleneck.
    """

    place: int
    rank: int
    scene: _Scene

    def side(self, now: Factors, number: int) -> tuple[Tensor, ...]:
        """Return the factors of a side, from the bottleneck outwards."""
        if number == 0:
            return tuple(factor.T for factor in reversed(now.factors[: self.place]))
        return now.factors[self.place :]

    def with_side(self, now: Factors, number: int, side: tuple[Tensor, ...]) -> Factors:
        """Return all factors with those of one side replaced."""
        if number == 0:
            return Factors((*(factor.T for factor in reversed(side)), *now.factors[self.place :]), now.biases)
        return Factors((*now.factors[: self.place], *side), now.biases)

    def with_product(self, now: Factors, number: int, wanted: Tensor) -> Factors:
        """Return the factors with the outermost of a side changed so that the side's product is `wanted`."""
        *inner, last = self.side(now, number)
        before = product(inner) if inner else torch.eye(self.rank, dtype=wanted.dtype)
        return self.with_side(now, number, (*inner, last + (wanted - last @ before) @ torch.linalg.pinv(before)))

    def seen(self, now: Factors) -> Tensor:
        """Return R^T in whitened coordinates, (rho, r)."""
        return self.scene.back.T @ product(self.side(now, 0))

    def placed(self, now: Factors, seen: Tensor) -> Factors:
        """Return the factors with R^T `seen` in whitened coordinates, and L and the output bias their least squares."""
        scene = self.scene
        inner = scene.white.T @ seen
        outer = scene.cross @ torch.linalg.pinv(seen).T
        now = self.with_product(self.with_product(now, 0, inner), 1, outer)
        if scene.means is None:
            return now
        return Factors(now.factors, (*now.biases[:-1], scene.means[1] - outer @ inner.T @ scene.means[0]))

    def along_side(self, walk: Walk, number: int, act: Callable[[Walk], Any]) -> Any:
        """Let `act` walk along one side alone, and take its pieces over; return what it returns."""
        standing = walk.now
        alone = Walk(Factors(self.side(standing, number), ()))
        result = act(alone)
        for piece in alone.legs:

            def at(s: float, piece: Piece = piece) -> Factors:
                return self.with_side(standing, number, piece.at(s).factors)

            walk.legs.append(Piece(at, piece.kind, piece.bent))
        walk.now = self.with_side(standing, number, alone.now.factors)
        return result


def _descend(walk: Walk, cut: _Cut) -> None:
    """Come down to a global minimum by legs that are constant, convex or monotone."""
    walk.drop_hidden_biases(True)
    cut.along_side(walk, 0, Walk.raise_ranks)
    _drop_unseen(walk, cut)
    _raise_rank(walk, cut)
    cut.along_side(walk, 1, Walk.raise_ranks)
    start = cut.seen(walk.now)
    walk.line(cut.placed(walk.now, start), "convex")
    # Principal vectors: start = Q S, the columns of Q left' are cos t u + sin t w, u in the span of leading vectors.
    frame, core = polar(start)
    best = cut.scene.leading[:, : cut.rank]
    right, cosines, left = torch.linalg.svd(best.T @ frame)
    towards, turned = best @ right, frame @ left.T
    beside = turned - towards * cosines
    sines = beside.norm(dim=0)
    # A direction of rounding size is none; its angle is zero.
    outward = torch.where(sines > 1e-12, beside / sines.clamp_min(1e-300), torch.zeros_like(beside))
    angles = torch.where(sines > 1e-12, torch.atan2(sines, cosines), torch.zeros_like(sines))
    standing = walk.now

    def at(s: float) -> Factors:
        span = towards * torch.cos((1 - s) * angles) + outward * torch.sin((1 - s) * angles)
        return cut.placed(standing, span @ left @ core)

    walk.legs.append(Piece(at, "monotone", True))
    walk.now = at(1.0)


def _drop_unseen(walk: Walk, cut: _Cut) -> None:
    """Take from R what no sample shows; the bias takes over what that added to all outputs."""
    scene, now = cut.scene, walk.now
    whole = product(cut.side(now, 0)).T
    shown = whole @ scene.back @ scene.white
    changed = cut.with_product(now, 0, shown.T)
    if scene.means is not None:
        moved = product(cut.side(now, 1)) @ (whole - shown) @ scene.means[0]
        changed = Factors(changed.factors, (*changed.biases[:-1], changed.biases[-1] + moved))
    walk.line(changed, "constant")


def _raise_rank(walk: Walk, cut: _Cut) -> None:
    """Give R full rank along directions that L does not see."""
    seen = cut.seen(walk.now)
    left, values, right = torch.linalg.svd(seen)
    rank = int((values > RANK * max(float(values[0]), 1e-300)).sum())
    if rank == cut.rank:
        return
    first, *others = cut.side(walk.now, 1)
    walk.line(cut.with_side(walk.now, 1, (first @ right[:rank].T @ right[:rank], *others)), "constant")
    scale = float(values[:rank].mean()) if rank else 1.0
    fuller = seen + scale * left[:, rank : cut.rank] @ right[rank:]
    walk.line(cut.with_product(walk.now, 0, cut.scene.white.T @ fuller), "constant")


def _meet(walk: Walk, goal: Factors, cut: _Cut) -> str:
    """Walk on from a global minimum to that of the other end; return what is to be said of it."""
    scene, notes = cut.scene, []
    basis = scene.leading[:, : cut.rank]
    there = basis.T @ cut.seen(goal)
    moving = joined(basis.T @ cut.seen(walk.now), there)
    if moving is None:
        _turn_sign(walk, cut)
        moving = joined(basis.T @ cut.seen(walk.now), there)
        assert moving is not None
        rise = 0.5 * float(scene.eigenvalues[cut.rank - 1] - scene.eigenvalues[cut.rank])
        notes.append(
            "the two networks have opposite orientation: modulo invertible matrices they are joined below the worse "
            f"end, in the weights over a pass {rise:.3g} above the global minimum"
        )
    standing, way = walk.now, moving

    def at(s: float) -> Factors:
        return cut.placed(standing, basis @ way(s))

    walk.legs.append(Piece(at, "constant", True))
    walk.now = at(1.0)
    for number in (0, 1):
        wanted = Factors(cut.side(goal, number), ())

        def act(alone: Walk, wanted: Factors = wanted) -> list[str]:
            found = alone.follow(wanted)
            alone.line(wanted, "convex")
            return found

        if cut.along_side(walk, number, act):
            notes.append("another layer as narrow has no spare dimension: the path passes a factor without full rank")
    return "; ".join(notes) or "every leg is constant, convex or monotone: the risk is at most that of the worse end"


def _turn_sign(walk: Walk, cut: _Cut) -> None:
    """Lead the last of the leading eigenvectors over the next one to its negative."""
    leading, standing = cut.scene.leading, walk.now
    here = leading[:, : cut.rank].T @ cut.seen(standing)
    for quarter in (0, 1):

        def at(s: float, quarter: int = quarter) -> Factors:
            angle = (quarter + s) * math.pi / 2
            basis = leading[:, : cut.rank].clone()
            basis[:, -1] = math.cos(angle) * leading[:, cut.rank - 1] + math.sin(angle) * leading[:, cut.rank]
            return cut.placed(standing, basis @ here)

        walk.legs.append(Piece(at, "monotone", True))
        walk.now = at(1.0)
