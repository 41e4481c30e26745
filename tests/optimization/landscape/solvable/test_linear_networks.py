"""All critical points of linear networks: against dense Hessians, by hand, and where the formulas must refuse."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from whydeep.core import InputError
from whydeep.optimization import landscape
from whydeep.optimization.landscape.solvable.linear_networks import (
    critical_points,
    explained,
    gradient_lower_bound,
    least_risk,
    risk,
    zero_network,
)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def data(inputs: int = 5, outputs: int = 4, samples: int = 40, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = draw(samples, inputs, seed=seed)
    mixing = draw(inputs, outputs, seed=seed + 100)
    left, _, right = torch.linalg.svd(mixing, full_matrices=False)
    strengths = torch.arange(1, left.shape[1] + 1, dtype=torch.float64)
    return x, x @ (left * strengths) @ right + 0.5 * draw(samples, outputs, seed=seed + 200)


def dense(weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian by automatic differentiation of the risk written out sample by sample."""
    shapes = [weight.shape for weight in weights]

    def written_out(vector: Tensor) -> Tensor:
        pieces = torch.split(vector, [shape.numel() for shape in shapes])
        total = torch.zeros((), dtype=torch.float64)
        product = torch.eye(x.shape[1], dtype=torch.float64)
        for piece, shape in zip(pieces, shapes, strict=True):
            product = piece.view(shape) @ product
        for sample, target in zip(x, y, strict=True):
            total = total + 0.5 * ((product @ sample - target) ** 2).sum()
        return total / len(x)

    vector = torch.cat([weight.reshape(-1) for weight in weights])
    gradient = torch.func.grad(written_out)(vector)
    return gradient, torch.autograd.functional.hessian(written_out, vector, vectorize=True)


@pytest.mark.parametrize(("width", "depth", "count"), [(2, 2, 11), (3, 2, 15), (4, 2, 16), (6, 2, 16), (4, 3, 16)])
def test_risk_gradient_and_index_of_every_set(width: int, depth: int, count: int) -> None:
    x, y = data(samples=12, seed=width)
    points = critical_points(x, y, width, depth=depth)
    assert len(points) == count  # sum over r <= min(width, 4) of binomial(4, r)
    for point in points:
        gradient, hessian = dense(point.weights, x, y)
        curvatures = torch.linalg.eigvalsh(hessian)
        scale = float(curvatures.abs().max())
        assert float(gradient.norm()) < 1e-11 * scale
        assert float(risk(point.weights, x, y)) == pytest.approx(point.risk, rel=1e-9)
        # The family of C makes many curvatures zero up to rounding (1e-14 of the largest); none other is below 1e-5.
        assert int((curvatures < -1e-8 * scale).sum()) == point.index
        assert not bool(((curvatures < -1e-11 * scale) & (curvatures > -1e-5 * scale)).any())


def test_the_index_holds_for_four_layers_and_a_bottleneck() -> None:
    x, y = data(3, 2, 10, seed=7)
    for point in critical_points(x, y, 2, depth=4) + critical_points(x, y, 1, depth=4):
        gradient, hessian = dense(point.weights, x, y)
        curvatures = torch.linalg.eigvalsh(hessian)
        assert float(gradient.norm()) < 1e-11 * float(curvatures.abs().max())
        assert int((curvatures < -1e-8 * curvatures.abs().max()).sum()) == point.index


def test_only_the_best_point_has_no_way_down() -> None:
    x, y = data(6, 5, 60, seed=3)
    points = critical_points(x, y, 3)
    assert [point.index == 0 for point in points] == [True] + [False] * (len(points) - 1)
    assert points[0].chosen == (0, 1, 2)
    assert points[0].risk == pytest.approx(least_risk(x, y, 3), rel=1e-12)


def test_a_singular_middle_factor_breaks_the_index_formula() -> None:
    # All weights zero, three layers: critical, the set {} with index formula p dy = 4, but every curvature is zero.
    x, y = data(3, 2, 10)
    gradient, hessian = dense(zero_network((3, 2, 2, 2), like=x), x, y)
    assert float(gradient.norm()) == 0
    assert float(hessian.abs().max()) == 0
    # With two layers the Hessian at zero is [[0, -Syx (x) I], ...]: its least eigenvalue is -sigma_max(Syx).
    _, shallow = dense(zero_network((3, 2, 2), like=x), x, y)
    strongest = float(torch.linalg.matrix_norm(y.T @ x / len(x), 2))
    assert float(torch.linalg.eigvalsh(shallow)[0]) == pytest.approx(-strongest, rel=1e-12)


def test_explained_is_the_moment_of_the_regression() -> None:
    x, y = data()
    sxx, syx = x.T @ x / len(x), y.T @ x / len(x)
    values, vectors = explained(x, y)
    moment = syx @ torch.linalg.inv(sxx) @ syx.T
    torch.testing.assert_close(vectors * values @ vectors.T, moment, rtol=1e-10, atol=1e-12)
    assert (values.diff() < 0).all()


@pytest.mark.parametrize("rank", [0, 1, 2, 4])
def test_least_risk_is_what_alternating_least_squares_reaches_on_any_data(rank: int) -> None:
    # Fewer samples than inputs and two equal columns of y: no assumption of the theorem is met.
    x, y = draw(4, 6, seed=1), draw(4, 3, seed=2)
    y = torch.cat([y, y[:, :1]], 1)
    second = draw(4, max(rank, 1), seed=3) if rank else torch.zeros(4, 1, dtype=torch.float64)
    first = torch.zeros(second.shape[1], 6, dtype=torch.float64)
    for _ in range(400):
        first = torch.linalg.pinv(second) @ (torch.linalg.pinv(x) @ y).T
        hidden = x @ first.T
        second = (torch.linalg.pinv(hidden) @ y).T
    assert float(risk((first, second), x, y)) == pytest.approx(least_risk(x, y, rank), abs=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_near_the_identity_the_gradient_is_at_least_the_bound(depth: int) -> None:
    x, y = draw(30, 3, seed=4), draw(30, 3, seed=5)
    for seed in range(20):
        drawn = [draw(3, 3, seed=10 * seed + k) for k in range(depth)]
        residuals = [0.1 * (1 + seed % 8) * a / torch.linalg.matrix_norm(a, 2) for a in drawn]
        layers = [(torch.eye(3, dtype=torch.float64) + a).requires_grad_() for a in residuals]
        gradients = torch.autograd.grad(risk(layers, x, y), layers)
        assert sum(float(g.square().sum()) for g in gradients) >= gradient_lower_bound(residuals, x, y) > 0


def test_the_bound_is_attained_where_all_factors_are_alike() -> None:
    # Sxx = I, W_k = (1 - tau) I, one dimension: |grad|^2 = K (1-tau)^(2K-2) D^2, and R - min R = D^2/2.
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    residuals = [torch.tensor([[-0.3]], dtype=torch.float64)] * 3
    layers = [(1 + a).requires_grad_() for a in residuals]
    gradients = torch.autograd.grad(risk(layers, x, 2 * x), layers)
    assert gradient_lower_bound(residuals, x, 2 * x) == pytest.approx(sum(float(g) ** 2 for g in gradients), rel=1e-12)


def test_beyond_the_unit_ball_the_bound_says_nothing() -> None:
    x = draw(9, 2, seed=0)
    assert gradient_lower_bound([-torch.eye(2, dtype=torch.float64)] * 3, x, x) == 0


def test_the_contract_names_it() -> None:
    x, y = data(2, 1, 9)
    points = landscape.linear_networks.critical_points(x, y, 1)
    assert [point.index for point in points] == [0, 1]


def test_single_precision_agrees_with_double() -> None:
    x, y = data()
    for one, two in zip(critical_points(x.float(), y.float(), 2), critical_points(x, y, 2), strict=True):
        assert one.chosen == two.chosen
        assert one.weights[0].dtype == torch.float32
        assert one.risk == pytest.approx(two.risk, rel=1e-5)  # some ten roundings of 1e-7


def test_wrong_data_are_refused_with_a_remedy() -> None:
    x, y = data()
    with pytest.raises(InputError, match="as many samples"):
        critical_points(x[:-1], y, 2)
    with pytest.raises(InputError, match="rank 3 of 4 outputs"):
        critical_points(x[:3], y[:3], 2)
    eye = torch.eye(3, dtype=torch.float64)
    with pytest.raises(InputError, match="agree"):
        critical_points(eye, eye, 2)
    with pytest.raises(InputError, match="y holds NaN"):
        critical_points(x, y * float("nan"), 2)
    with pytest.raises(TypeError, match="x is list"):
        critical_points([[1.0]], y, 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"y is torch\.int64"):
        critical_points(x, y.long(), 2)
    with pytest.raises(ValueError, match="two layers"):
        critical_points(x, y, 2, depth=1)
    with pytest.raises(ValueError, match="rank=-1"):
        least_risk(x, y, -1)
