import pytest
import torch

from whydeep.optimization.alternating.quadratic_blocks import (
    ROWS,
    blocks,
    factor,
    gram,
    inputs_product,
    state_response,
    weight_increment,
)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_ones(states):
    return torch.cat([states, torch.ones_like(states[:, :1])], 1)


@pytest.mark.parametrize("n", [1, ROWS, 2 * ROWS + 3])
@pytest.mark.parametrize("width", [1, 256, 515])
@pytest.mark.parametrize("bias", [True, False])
def test_gram_is_the_product(n, width, bias):
    states = draw(n, width)
    full = with_ones(states) if bias else states
    torch.testing.assert_close(gram(states, bias=bias), full.T @ full, rtol=1e-11, atol=1e-11)


def test_blocks_cover_every_sample_once():
    covered = torch.cat([torch.arange(2 * ROWS + 3)[rows] for rows in blocks(2 * ROWS + 3)])
    assert torch.equal(covered, torch.arange(2 * ROWS + 3))


def test_gram_of_single_precision_states_is_formed_in_double():
    # Sixty nearly equal columns, as saturated units have them: the Gram matrix is singular to single precision.
    states = (0.9 + 1e-4 * draw(3000, 60)).float()
    found = gram(states, bias=True)
    torch.testing.assert_close(found, with_ones(states).double().T @ with_ones(states).double(), rtol=1e-13, atol=0)
    factor(found, 1e-6)
    single = with_ones(states).T @ with_ones(states)
    with pytest.raises(ArithmeticError, match="not positive definite"):
        factor(single.double(), 1e-6)


def family(name, n, size):
    """Samples of states whose Gram matrices are hard on rounding, float32."""
    return {
        "rectified": torch.relu(draw(n, size)),
        "equal": torch.full((n, size), 0.1),
        "nearly equal": 0.5 + 1e-3 * draw(n, size),
        "saturated alike": torch.sigmoid(8 * draw(n, 1) + 0.01 * draw(n, size, seed=1)),
        "of rank two": torch.relu(draw(n, 2) @ draw(2, size, seed=1)),
    }[name].float()


@pytest.mark.parametrize("name", ["rectified", "equal", "nearly equal", "saturated alike", "of rank two"])
@pytest.mark.parametrize("size", [10, 63, 64, 200])
def test_a_large_shift_allows_single_precision_for_wide_matrices_and_a_small_one_does_not(name, size):
    states = family(name, 2 * ROWS, size)
    exact = states.double().T @ states.double()
    limit = 4 * torch.finfo(torch.float32).eps * float(exact.diagonal().sum())
    small, large = (gram(states, bias=False, shift=shift) for shift in (0.99 * limit, 1.01 * limit))
    torch.testing.assert_close(small, exact, rtol=1e-13, atol=1e-9)
    if size < 64:
        torch.testing.assert_close(large, exact, rtol=1e-13, atol=1e-9)
        return
    assert not torch.equal(large, small)
    # What the step relies on: in every direction the error is at most a sixteenth of the matrix with its shift.
    lower = torch.linalg.cholesky(exact + limit * torch.eye(size, dtype=torch.float64))
    half = torch.linalg.solve_triangular(lower, large - exact, upper=False)
    relative = torch.linalg.solve_triangular(lower, half.T, upper=False)
    assert float(torch.linalg.matrix_norm(relative, 2)) <= 1 / 16


def test_narrow_matrices_need_double():
    # Where single precision errs by as much as the whole matrix, even with the larger of the two shifts.
    states = family("equal", 8 * ROWS, 10)
    exact = states.double().T @ states.double()
    limit = 16 * torch.finfo(torch.float32).eps * float(exact.diagonal().sum())
    torch.testing.assert_close(gram(states, bias=False, shift=2 * limit), exact, rtol=1e-13, atol=0)
    error = (states.T @ states).double() - exact
    assert float(torch.linalg.matrix_norm(error, 2)) > limit / 16


@pytest.mark.parametrize("bias", [True, False])
def test_weight_increment_minimises(bias):
    n, inputs, outputs, alpha, rho = 30, 4, 3, 0.7, 2.0
    states, wanted = draw(n, inputs), draw(n, outputs, seed=1)
    old = draw(outputs, inputs + bias, seed=2)
    full = with_ones(states) if bias else states
    product = inputs_product(wanted - full @ old.T, states, bias=bias)
    new = (old + weight_increment(product, factor(gram(states, bias=bias), alpha / rho))).requires_grad_()
    value = rho / 2 * (wanted - full @ new.T).square().sum() + alpha / 2 * (new - old).square().sum()
    (gradient,) = torch.autograd.grad(value, new)
    assert float(gradient.abs().max()) < 1e-11  # terms of size 100, solved in float64


@pytest.mark.parametrize(("outputs", "inputs"), [(3, 7), (7, 3), (4, 4), (1, 5), (5, 1)])
def test_state_response_minimises(outputs, inputs):
    n, gamma, rho = 20, 0.6, 2.5
    matrix, inner, wanted = draw(outputs, inputs), draw(n, inputs, seed=1), draw(n, outputs, seed=2)
    response, left_over = state_response(matrix, gamma / rho)
    gap = wanted - inner @ matrix.T
    state = (inner + gap @ response).requires_grad_()
    value = gamma / 2 * (state - inner).square().sum() + rho / 2 * (wanted - state @ matrix.T).square().sum()
    (gradient,) = torch.autograd.grad(value, state)
    assert float(gradient.abs().max()) < 1e-12  # terms of size 10
    if outputs < inputs:
        torch.testing.assert_close(gap @ left_over, wanted - state.detach() @ matrix.T, rtol=1e-12, atol=1e-12)
    else:
        assert left_over is None
