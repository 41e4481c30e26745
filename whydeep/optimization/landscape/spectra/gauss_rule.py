"""The Gauss rule of one random column, and what it says for certain of the column's mass below a level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEFT = 1e-12
"""Where a residual is this part of the matrix, rounding has the last word and the Krylov space is closed."""


@dataclass(frozen=True)
class GaussRule:
    """The mass that a unit vector z has on the eigenvalues of A, mu = sum_i (z . v_i)^2 delta(lambda_i), at few nodes.

    nodes (m,) ascending, weights (m,): exact for polynomials of degree below 2 m. closed: the rule is mu itself.
    """

    nodes: Tensor
    weights: Tensor
    closed: bool

    @staticmethod
    def of(matrix: Tensor, column: int, *, steps: int) -> GaussRule:
        """Return the rule of the unit vector e_column for a symmetric matrix (k, k), by `steps` steps of Lanczos.

        A block Lanczos run of m steps from several columns holds for each of them m steps of its own; its common nodes
        are no Gauss rule of any one column, and the inequalities of `below` do not hold for them. Source: Golub and
        Welsch 1969 (recalled, not checked against the paper).
        """
        basis = torch.zeros(steps, len(matrix), dtype=matrix.dtype)
        basis[0, column] = 1
        scale = float(matrix.norm())
        for done in range(1, steps):
            ahead = matrix @ basis[done - 1]
            for _ in range(2):  # twice is enough against rounding (Parlett)
                ahead = ahead - basis[:done].T @ (basis[:done] @ ahead)
            length = float(ahead.norm())
            if length <= LEFT * scale:
                return GaussRule._from(matrix, basis[:done], True)
            basis[done] = ahead / length
        return GaussRule._from(matrix, basis, False)

    @staticmethod
    def _from(matrix: Tensor, basis: Tensor, closed: bool) -> GaussRule:
        nodes, vectors = torch.linalg.eigh(basis @ matrix @ basis.T)
        return GaussRule(nodes, vectors[0].square(), closed)

    def below(self, level: float) -> tuple[float, float]:
        """Return bounds of mu((-inf, level)): the weight below it without the node next to it, and with the next above.

        The inequalities of Chebyshev, Markov and Stieltjes (Szego, Orthogonal Polynomials, section 3.41; recalled, not
        checked against the book): for a node t_k, sum_{j<k} w_j <= mu((-inf, t_k)) and mu((-inf, t_k]) <=
        sum_{j<=k} w_j.
        """
        under = int((self.nodes < level).sum())
        if self.closed:
            mass = float(self.weights[:under].sum())
            return mass, mass
        return float(self.weights[: max(0, under - 1)].sum()), float(self.weights[: under + 1].sum())
