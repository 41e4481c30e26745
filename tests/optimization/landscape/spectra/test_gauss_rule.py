import numpy as np
import pytest
import torch

from whydeep.optimization.landscape import matrix_spectrum
from whydeep.optimization.landscape.spectra.gauss_rule import GaussRule


def matrix_with(eigenvalues, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    q, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return (q * torch.as_tensor(eigenvalues, dtype=torch.float64)) @ q.T


def test_for_the_uniform_weight_it_is_the_rule_of_gauss_and_legendre():
    # Multiplication by x in the basis of normalised Legendre polynomials; the first of them is the constant.
    size = 40
    beside = [k / np.sqrt(4 * k * k - 1) for k in range(1, size)]
    jacobi = torch.as_tensor(np.diag(beside, 1) + np.diag(beside, -1))
    rule = GaussRule.of(jacobi, 0, steps=7)
    nodes, weights = np.polynomial.legendre.leggauss(7)
    np.testing.assert_allclose(rule.nodes.numpy(), nodes, atol=1e-13)
    np.testing.assert_allclose(rule.weights.numpy(), weights / 2, atol=1e-13)


@pytest.mark.parametrize("column", [0, 3])
def test_its_bounds_enclose_the_mass_below_every_level(column):
    values = torch.linspace(-1, 2, 30, dtype=torch.float64) ** 3
    matrix = matrix_with(values)
    seen, vectors = torch.linalg.eigh(matrix)
    rule = GaussRule.of(matrix, column, steps=9)
    for level in torch.linspace(-1.5, 8.5, 57).tolist():
        mass = float(vectors[column, seen < level].square().sum())
        low, high = rule.below(level)
        # To rounding: the sums are of order one.
        assert low - 1e-12 <= mass <= high + 1e-12
    assert not rule.closed


def test_a_closed_space_leaves_nothing_open():
    rule = GaussRule.of(torch.diag(torch.tensor([1.0, 1.0, 2.0]).double()), 2, steps=3)
    assert rule.closed
    assert rule.below(1.5) == (0.0, 0.0)
    assert rule.below(2.5) == (1.0, 1.0)


def test_the_count_is_covered_where_a_bulk_straddles_the_level():
    # As in trained networks: many directions without curvature, some barely negative, a few large ones.
    generator = torch.Generator().manual_seed(0)
    bulk = 1e-5 * torch.randn(200, generator=generator, dtype=torch.float64).abs()
    values = torch.cat([torch.zeros(43).double(), bulk, torch.linspace(-0.06, -1e-5, 47).double(),
                        torch.logspace(-3, 0.5, 110, dtype=torch.float64)])  # fmt: skip
    matrix = matrix_with(values)
    inside = [
        (
            found := matrix_spectrum(matrix, torch.zeros(400, dtype=torch.float64), steps=15, generator=stream).negative
        ).low
        <= 47
        <= found.high
        for stream in (torch.Generator().manual_seed(seed) for seed in range(60))
    ]
    # 95 % at least; of 60 intervals fewer than 51 hold the truth with probability .0006 only.
    assert sum(inside) >= 51
