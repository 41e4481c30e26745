"""Block Lanczos against the matrix that it projects."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from whydeep.core import InputError
from whydeep.optimization.landscape.spectra.block_lanczos import Projection, block_lanczos, lengths


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotated(values: Tensor) -> Tensor:
    turn, _ = torch.linalg.qr(normal(len(values), len(values)))
    return turn * values @ turn.T


def check(a: Tensor, seen: Projection, precision: float) -> None:
    """The basis is orthonormal, T is A on it, and the residuals are those of A."""
    k = len(seen.matrix)
    basis = seen.basis.double()
    torch.testing.assert_close(basis @ basis.T, torch.eye(k, dtype=torch.float64), rtol=0, atol=precision)
    scale = float(a.abs().max())
    torch.testing.assert_close(basis @ a @ basis.T, seen.matrix, rtol=0, atol=10 * precision * scale)
    values, coordinates, residuals = seen.ritz()
    vectors = coordinates.T @ basis
    exact = (vectors @ a - values[:, None] * vectors).norm(dim=1)
    torch.testing.assert_close(exact, residuals - seen.rounding, rtol=1e-6, atol=100 * precision * scale)


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("steps", [1, 4, 12])
def test_the_projection_is_that_of_the_matrix(width: int, steps: int) -> None:
    a = rotated(torch.cat([torch.linspace(-1, 1, 115), torch.tensor([5.0, 6.0, 6.5, 8.0, 20.0])]).double())
    seen = block_lanczos(lambda v: v @ a, normal(width, 120, seed=1), steps=steps)
    assert len(seen.matrix) == width * steps
    check(a, seen, 1e-13)


def test_single_precision_keeps_the_basis_orthogonal_through_convergence() -> None:
    a = rotated(torch.cat([torch.linspace(-0.1, 0.1, 390), torch.linspace(1, 1000, 10)]).double())
    single = a.float()
    seen = block_lanczos(lambda v: v @ single, normal(4, 400, seed=1).float(), steps=40)
    # After ten converged eigenvectors a recurrence without reorthogonalisation has lost everything: overlaps near 1.
    gram = seen.basis.double() @ seen.basis.double().T
    assert float((gram - torch.eye(len(gram))).abs().max()) < 1e-6
    values = seen.ritz()[0]
    assert int((values > 0.5).sum()) == 10, "no copies"


def test_the_space_is_that_of_the_powers() -> None:
    a, start = rotated(torch.linspace(1, 2, 30).double()), normal(2, 30, seed=1)
    seen = block_lanczos(lambda v: v @ a, start, steps=3)
    powers = torch.cat([start, start @ a, start @ a @ a])
    outside = powers - powers @ seen.basis.T @ seen.basis
    assert float(outside.abs().max()) < 1e-10
    assert seen.first == 2


def test_an_invariant_start_is_left_by_fresh_directions() -> None:
    diagonal = torch.arange(10.0, dtype=torch.float64)
    start = torch.eye(10, dtype=torch.float64)[3:4]  # an eigenvector: its Krylov space has one dimension
    seen = block_lanczos(lambda v: v * diagonal, start, steps=10)
    assert seen.whole
    torch.testing.assert_close(seen.ritz()[0], diagonal, rtol=0, atol=1e-10)
    # Dependent rows of a start count once.
    twice = block_lanczos(lambda v: v * diagonal, normal(1, 10).repeat(3, 1), steps=2)
    assert twice.first == 1


def test_it_stops_when_told_and_refuses_what_it_cannot_use() -> None:
    a = rotated(torch.linspace(1, 2, 30).double())
    seen = block_lanczos(lambda v: v @ a, normal(2, 30, seed=1), steps=9, stop=lambda state: state.steps == 3)
    assert seen.steps == 3
    with pytest.raises(ValueError, match="no zero rows"):
        block_lanczos(lambda v: v, torch.zeros(1, 3), steps=2)
    with pytest.raises(ValueError, match="steps >= 1"):
        block_lanczos(lambda v: v, torch.ones(1, 3), steps=0)
    with pytest.raises(InputError, match="not symmetric"):
        block_lanczos(lambda v: v @ torch.triu(a), normal(2, 30, seed=1), steps=9)
    # With one vector the first step cannot tell; the coupling of the second to the first does.
    with pytest.raises(InputError, match="not symmetric"):
        block_lanczos(lambda v: v @ torch.triu(a), normal(1, 30, seed=1), steps=9)


def test_ten_million_single_numbers_make_a_unit_vector() -> None:
    # Summed in single precision the squares of ten million numbers lose four digits: the vectors would not have length
    # 1, which looks like a matrix that is not symmetric. Rank two, so that the second step holds the largest |A q|.
    size = 10_000_000
    far = torch.rand(size, generator=torch.Generator().manual_seed(0))
    far /= float(lengths(far[None]))
    start = torch.randn(1, size, generator=torch.Generator().manual_seed(1))
    seen = block_lanczos(lambda v: 100 * (v.double() @ far.double())[:, None].float() * far, start, steps=2)
    assert lengths(seen.basis).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert float(seen.ritz()[0][-1]) == pytest.approx(100, rel=1e-4)
