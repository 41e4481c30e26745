import pytest
import torch

from whydeep.optimization.alternating.gram import steady_factor


def test_a_positive_definite_matrix_is_factorised_as_it_is():
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = rows.T @ rows
    before = matrix.clone()
    lower = steady_factor(matrix, 0.3)
    torch.testing.assert_close(lower @ lower.T, matrix + 0.3 * torch.eye(4, dtype=torch.float64))
    assert torch.equal(matrix, before)


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_a_singular_matrix_gets_a_shift_of_the_size_of_its_rounding(size):
    direction = torch.linspace(1, 2, 50, dtype=torch.float64)
    matrix = size * torch.outer(direction, direction)
    lower = steady_factor(matrix, 0.0)
    added = (lower @ lower.T - matrix).diagonal() / matrix.diagonal().sum()
    # eps, times ten for every further attempt; 50 rows round to some 1e-15 of the trace.
    assert float(added.max()) <= 1e-12


def test_zeros_are_factorised_and_what_is_not_finite_is_refused():
    assert bool(steady_factor(torch.zeros(3, 3, dtype=torch.float64), 0.0).isfinite().all())
    with pytest.raises(ArithmeticError, match="not finite"):
        steady_factor(torch.full((2, 2), torch.nan, dtype=torch.float64), 1.0)
