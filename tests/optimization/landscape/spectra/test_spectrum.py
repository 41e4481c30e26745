"""The spectrum report against dense linear algebra, known matrices, and other people's operators."""

from __future__ import annotations

import pytest
import torch
from dense_hessian import dense
from problems import blobs, digits, small_problem
from torch import Tensor, nn

from whydeep.core import Data, InputError, Problem
from whydeep.core.training import Progress
from whydeep.networks import linear, mlp
from whydeep.optimization.landscape.spectra.hessian import Hessian
from whydeep.optimization.landscape.spectra.matrix_spectrum import matrix_spectrum
from whydeep.optimization.landscape.spectra.spectrum import parameters_by_layer, spectrum


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def rotated(values: Tensor) -> Tensor:
    turn, _ = torch.linalg.qr(normal(len(values), len(values)))
    return turn * values @ turn.T


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("batch_size", [2048, 7], ids=["one batch", "ragged batches"])
def test_a_small_network_agrees_with_its_dense_hessian(activation: str, batch_size: int) -> None:
    problem = small_problem(activation, dtype=torch.float64)
    truth = torch.linalg.eigvalsh(dense(problem))
    seen = spectrum(problem, top=5, batch_size=batch_size, tolerance=0.0)
    # 59 parameters and 140 directions at most: every one is visited, and only rounding is left.
    torch.testing.assert_close(seen.eigenvalues, truth[-5:].flip(0), rtol=0, atol=1e-10)
    assert seen.smallest == pytest.approx(float(truth[0]), abs=1e-10)
    assert seen.trace == pytest.approx(float(truth.sum()), rel=1e-10)
    assert seen.trace_error == 0
    assert seen.unseen == 0
    assert seen.products == seen.size == 59
    counted = int((truth < -1e-9).sum())
    assert (seen.negative.low, seen.negative.value, seen.negative.high) == (counted, counted, counted)


def test_a_larger_network_agrees_within_what_it_states() -> None:
    data, _ = digits(100, dtype=torch.float64)
    problem = Problem(mlp((64, 8, 10), activation="tanh", init="xavier", generator=seeded(3)).double(), data)
    truth = torch.linalg.eigvalsh(dense(problem))  # 610 parameters
    seen = spectrum(problem, top=10, trace_tolerance=0.05)
    assert seen.converged
    assert seen.products < 250
    largest = float(truth[-1])
    assert float(seen.residuals.max()) <= 1.001e-4 * largest
    # Lanczos with 10 wanted finds the 10 largest, none left out; an eigenvalue errs by residual^2 / gap at most.
    torch.testing.assert_close(seen.eigenvalues, truth[-10:].flip(0), rtol=0, atol=1e-4 * largest)
    assert abs(seen.smallest - float(truth[0])) <= seen.smallest_residual
    assert seen.trace_error <= 0.05 * abs(seen.trace)
    # 4.5 standard errors at 12 probes or more: probability of failure below 0.001.
    assert abs(seen.trace - float(truth.sum())) <= 4.5 * seen.trace_error
    product = Hessian(problem)
    for value, residual, vector in zip(seen.eigenvalues, seen.residuals, seen.eigenvectors, strict=True):
        assert float((product(vector) - value * vector).norm()) <= float(residual) + 1e-12
    assert float((product(seen.softest) - seen.smallest * seen.softest).norm()) <= seen.smallest_residual + 1e-12


def test_single_precision_keeps_the_residuals_honest() -> None:
    data, _ = digits(100)
    model = mlp((64, 8, 10), activation="tanh", init="xavier", generator=seeded(3))
    seen = spectrum(Problem(model, data))
    exact = Hessian(Problem(model.double(), digits(100, dtype=torch.float64)[0]))
    for value, residual, vector in zip(seen.eigenvalues, seen.residuals, seen.eigenvectors.double(), strict=True):
        # Two float32 products of 600 entries differ from the exact ones by some 1e-6 of the largest eigenvalue.
        assert float((exact(vector) - value * vector).norm()) <= float(residual) + 2e-6 * seen.largest


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_differences_of_gradients_give_the_same_spectrum_in_single_precision(activation: str) -> None:
    problem = Problem(mlp((64, 8, 10), activation=activation, init="he", generator=seeded(3)), digits(100)[0])
    exact, differences = (
        spectrum(problem, top=3, trace_tolerance=0.1, engine=engine) for engine in ("retained", "difference")
    )
    torch.testing.assert_close(differences.eigenvalues, exact.eigenvalues, rtol=1e-4, atol=0)
    assert differences.smallest == pytest.approx(exact.smallest, rel=1e-3)
    # The same generator: the same probes, up to the rounding that turns the basis.
    assert differences.trace == pytest.approx(exact.trace, abs=4 * exact.trace_error)


def test_the_gauss_newton_part_is_the_mean_of_squared_jacobians() -> None:
    # With the squared loss L_i is the identity: G = 1/n sum_i J_i^T J_i, here from the Jacobian written out.
    x = normal(6, 3)
    model = mlp((3, 4, 2), activation="tanh", init="xavier", generator=seeded(0)).double()
    problem = Problem(model, Data(x, normal(6, 2, seed=1)), loss="squared")
    names = dict(model.named_parameters())

    def output(*values: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,)).reshape(-1)

    jacobian = torch.cat(
        [part.reshape(12, -1) for part in torch.autograd.functional.jacobian(output, tuple(names.values()))], 1
    )
    matrix = jacobian.T @ jacobian / 6
    ours = Hessian(problem, gauss_newton=True)
    torch.testing.assert_close(ours(torch.eye(ours.size, dtype=torch.float64)), matrix, rtol=1e-10, atol=1e-12)
    seen = spectrum(problem, operator="ggn")
    assert seen.largest == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-10)
    assert seen.negative.high == 0


def test_every_layer_has_the_spectrum_of_its_diagonal_block() -> None:
    problem = small_problem(dtype=torch.float64)
    whole = dense(problem)
    seen = spectrum(problem, per_layer=True)
    start = 0
    assert [*seen.layers] == ["1", "3", "5"]
    for name, layer in seen.layers.items():
        block = whole[start : start + layer.size, start : start + layer.size]
        truth = torch.linalg.eigvalsh(block)
        torch.testing.assert_close(layer.eigenvalues, truth[-3:].flip(0), rtol=0, atol=1e-10)
        assert layer.smallest == pytest.approx(float(truth[0]), abs=1e-10)
        assert layer.trace == pytest.approx(float(block.trace()), rel=1e-10)
        start += len(parameters_by_layer(problem)[name]) and layer.size
    assert start == 59
    assert sum(layer.trace for layer in seen.layers.values()) == pytest.approx(seen.trace, rel=1e-10)


def test_the_same_generator_gives_the_same_spectrum() -> None:
    data, _ = digits(60)
    problem = Problem(mlp((64, 10, 10), init="he", generator=seeded(1)), data)
    first, again, other = (spectrum(problem, generator=seeded(seed), trace_tolerance=1.0) for seed in (5, 5, 6))
    assert torch.equal(first.eigenvalues, again.eigenvalues)
    assert first.trace == again.trace
    assert first.trace != other.trace


def test_the_start_is_unrelated_to_weights_of_the_same_seed() -> None:
    size = 5000
    weights, starts = torch.randn(size, generator=seeded(0)), []

    def product(v: Tensor) -> Tensor:
        starts.append(v)
        return v * torch.linspace(1, 2, size)

    matrix_spectrum(product, weights, top=1, columns=1, steps=2, probes=4, generator=seeded(0))
    cosine = float(starts[0] @ weights / starts[0].norm() / weights.norm())
    assert abs(cosine) < 4.5 / size**0.5, "4.5 standard deviations"


def test_a_wishart_matrix_has_the_density_of_its_eigenvalues_and_the_band_says_how_well() -> None:
    # A = X^T X / n with n = 4 p: no eigenvalue is isolated, so that everything rests on the quadrature.
    size = 300
    x = normal(4 * size, size)
    a = x.T @ x / (4 * size)
    truth = torch.linalg.eigvalsh(a)
    grid = torch.linspace(0.1, 2.4, 200, dtype=torch.float64)
    exact = torch.exp(-0.5 * ((grid - truth[:, None]) / 0.1) ** 2).sum(0) / (size * 0.1 * (2 * torch.pi) ** 0.5)
    inside = []
    for seed in range(20):
        seen = matrix_spectrum(a, truth, top=1, tolerance=0.0, steps=20, generator=seeded(100 + seed))
        density = seen.density(grid, width=0.1)
        error = float((density.value - exact).abs().sum() * (grid[1] - grid[0]))
        # Some 40 eigenvalues in a bump and two columns: sd sqrt(2 / 80) = 16 % of each height, and 4/5 of that in L1.
        assert error < 0.25
        assert float(density.value.sum() * (grid[1] - grid[0])) == pytest.approx(1, abs=0.02)
        inside.append(float(((density.low <= exact) & (exact <= density.high)).double().mean()))
    # Pointwise 95 % bands: the mean over 20 runs of some 20 independent points has deviation of about 2 %.
    assert sum(inside) / 20 > 0.85
    moment = float(density.value @ grid * (grid[1] - grid[0]))
    assert moment == pytest.approx(float(a.trace()) / size, rel=0.05)


def test_the_stated_error_of_the_density_is_its_spread_over_starts() -> None:
    # 60 starts: the standard deviation seen has a standard error of 9 %, so 4 of them are 37 %.
    values = torch.linspace(0, 1, 200, dtype=torch.float64)
    a = rotated(values)
    seen = [matrix_spectrum(a, values, top=1, tolerance=0.0, steps=15, generator=seeded(100 + k)) for k in range(60)]
    densities = [one.density([0.3, 0.7], width=0.08) for one in seen]
    spread = torch.stack([density.value for density in densities]).std(0)
    stated = torch.stack([(density.high - density.value) / 1.96 for density in densities]).square().mean(0).sqrt()
    torch.testing.assert_close(stated, spread, rtol=0.37, atol=0)


def test_isolated_eigenvalues_weigh_exactly_one_of_p() -> None:
    values = torch.cat([torch.linspace(-0.1, 0.1, 395).double(), torch.tensor([4.0, 5.0, 6.0, 8.0, 9.0]).double()])
    seen = matrix_spectrum(rotated(values), values, top=5)
    grid = torch.linspace(3.0, 10.0, 700, dtype=torch.float64)
    density = seen.density(grid, width=0.05)
    exact = torch.exp(-0.5 * ((grid - values[-5:, None]) / 0.05) ** 2).sum(0) / (400 * 0.05 * (2 * torch.pi) ** 0.5)
    torch.testing.assert_close(density.value, exact, rtol=0, atol=1e-3 * float(exact.max()))
    assert float((density.high - density.low).max()) < 1e-3 * float(exact.max())


def test_the_picture_says_what_it_shows() -> None:
    values = torch.cat([torch.zeros(300), torch.linspace(0.5, 1, 98), torch.tensor([4.0, -2.0])]).double()
    seen = matrix_spectrum(rotated(values), values, top=2, tolerance=0.0)
    curve = seen.curve()
    density, edge = curve.lines
    assert "of 400 eigenvalues 75 % lie within a hundredth of the largest from zero" in curve.alt.lower()
    # Every direction was visited: at an eigenvalue alone the height is that of one bump, 1/(400 sigma sqrt(2 pi)).
    sigma = 0.01 * (density.x[-1] - density.x[0])
    at_four = min(range(len(density.x)), key=lambda k: abs(density.x[k] - 4))
    bump = torch.exp(torch.tensor(-0.5 * ((density.x[at_four] - 4) / sigma) ** 2)) / (
        400 * sigma * (2 * torch.pi) ** 0.5
    )
    assert density.y[at_four] == pytest.approx(float(bump), rel=1e-6)
    assert sorted({round(x, 9) for x in edge.x if x == x}) == [-2, 1, 4]
    axes = seen.plot()
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "eigenvalue"


def test_an_eigenvalue_of_high_multiplicity_is_not_taken_for_one() -> None:
    values = torch.cat([torch.zeros(350), torch.linspace(1, 2, 50)]).double()
    seen = matrix_spectrum(rotated(values), values, top=3)
    near = torch.linspace(-0.2, 0.2, 400, dtype=torch.float64)
    mass = float(seen.density(near, width=0.02).value.sum() * (near[1] - near[0]))
    # Mean of 2 columns of (chi^2_350 / chi^2_400): sd sqrt(2 / (2 * 402) * .125 * .875) = .017.
    assert mass == pytest.approx(0.875, abs=0.055)
    # At a level inside the gap the count has the interval of the random start, and certain bounds hold around it.
    count = seen.quadrature.below(0.5)
    assert count.low <= 350 <= count.high


def test_counts_cover_the_truth_as_often_as_they_say() -> None:
    values = torch.cat([-torch.linspace(0.2, 1.0, 60), torch.linspace(0.2, 3.0, 340)]).double()
    a = rotated(values)
    covered = 0
    for seed in range(60):
        count = matrix_spectrum(a, values, top=1, tolerance=0.0, steps=8, generator=seeded(seed)).negative
        assert count.low <= count.value <= count.high
        covered += count.low <= 60 <= count.high
    assert covered >= 50, "95 %: 49 or fewer of 60 have probability below 1e-4"
    certain = matrix_spectrum(a, values, top=1, tolerance=0.0, steps=40).negative
    assert certain.low >= 20, "negative Ritz values are a certain lower bound"


def test_the_negative_part_of_a_convex_problem_is_empty() -> None:
    x = normal(30, 4)
    problem = Problem(linear(4, 2).double(), Data(x, normal(30, 2, seed=1)), loss="squared")
    assert spectrum(problem).negative.high == 0


@pytest.mark.parametrize(
    "values",
    [[4.0], [0.0] * 3, [2.0] * 30, [0.0] * 500, [-1.0, 5.0], [3.0] * 100 + [1.0] * 200, [7.0] + [0.0] * 299],
    ids=["one", "zero", "identity", "large zero", "two", "two clusters", "rank one"],
)
def test_small_and_degenerate_matrices(values: list[float]) -> None:
    a = rotated(torch.tensor(values, dtype=torch.float64))
    seen = matrix_spectrum(a, a[0], top=3)
    wanted = torch.tensor(sorted(values, reverse=True)[: min(3, len(values))], dtype=torch.float64)
    torch.testing.assert_close(seen.eigenvalues, wanted, rtol=0, atol=1e-10)
    assert seen.smallest == pytest.approx(min(values), abs=1e-10)
    assert abs(seen.trace - sum(values)) <= max(5 * seen.trace_error, 1e-9)
    assert seen.converged
    assert float(seen.density(seen.grid()).value.min()) >= 0


def test_clustered_eigenvalues_are_all_found() -> None:
    values = torch.cat(
        [torch.linspace(-1, 1, 290).double(), 5 + 1e-9 * torch.arange(4).double(), torch.tensor([6.0] * 6).double()]
    )
    seen = matrix_spectrum(rotated(values), values, top=10)
    # A block of 2 sees an eigenvalue of multiplicity 6 twice; what it returns are eigenvalues all the same.
    assert int((seen.eigenvalues > 5.999).sum()) >= 2
    assert float((seen.eigenvalues[:, None] - values).abs().min(1).values.max()) < 1e-3


def test_an_unfinished_run_says_so() -> None:
    values = torch.linspace(0, 1, 400, dtype=torch.float64)
    a = rotated(values)
    short = 0
    for seed in range(40):
        seen = matrix_spectrum(a, values, top=1, steps=6, trace_tolerance=1.0, generator=seeded(seed))
        assert not seen.converged
        assert seen.largest <= 1 + 1e-12, "a Ritz value never exceeds the largest eigenvalue"
        assert float((values - seen.largest).abs().min()) <= float(seen.residuals[0])
        short += seen.largest + seen.unseen < 1
    # The bound fails with probability at most 2.5 % a run; 6 or more of 40 would have probability below 0.1 %.
    assert short <= 5


def test_an_operator_that_is_not_symmetric_is_refused() -> None:
    a = rotated(torch.linspace(1, 2, 50, dtype=torch.float64))
    skewed = a + 0.01 * torch.triu(normal(50, 50))
    with pytest.raises(InputError, match="not symmetric"):
        matrix_spectrum(skewed, a[0])
    with pytest.raises(InputError, match="NaN or infinite"):
        matrix_spectrum(lambda v: v * float("nan"), a[0])
    single = torch.randn(400, 400, generator=seeded(0))
    with pytest.raises(InputError, match="not symmetric"):
        matrix_spectrum(single, single[0])
    matrix_spectrum((single + single.T) / 2, single[0], steps=6, trace_tolerance=1.0)


def test_any_operator_is_taken() -> None:
    problem = small_problem(dtype=torch.float64)
    matrix = dense(problem)
    sparse_linalg = pytest.importorskip("scipy.sparse.linalg")
    wrapped = sparse_linalg.aslinearoperator(matrix.numpy())
    expected = spectrum(problem)
    for operator in (matrix, matrix.numpy(), wrapped, lambda v: matrix @ v, lambda v: (matrix @ v).numpy()):
        seen = spectrum(problem, operator=operator)
        torch.testing.assert_close(seen.eigenvalues, expected.eigenvalues, rtol=1e-10, atol=1e-10)
    with pytest.raises(InputError, match=r"shape \(59, 59\)"):
        spectrum(problem, operator=torch.eye(3))
    with pytest.raises(InputError, match="one vector a vector"):
        spectrum(problem, operator=lambda v: v[:3])
    with pytest.raises(TypeError, match="give a function"):
        spectrum(problem, operator=3)
    with pytest.raises(ValueError, match="unknown operator"):
        spectrum(problem, operator="fisher")
    with pytest.raises(ValueError, match="knows no layers"):
        spectrum(problem, operator=matrix, per_layer=True)


def test_too_little_memory_is_said_with_what_would_fit() -> None:
    problem = small_problem()
    # 59 parameters of 4 bytes: at most 59 + 11 + 15 vectors.
    with pytest.raises(InputError, match=r"give steps=\d+, which fits"):
        spectrum(problem, memory=18_000)
    with pytest.raises(InputError, match="give at most"):
        spectrum(problem, memory=6_000)
    assert spectrum(problem, memory=25_000).products
    # No more eigenvalues are kept than there are, however many are asked for: memory is not what is short.
    assert len(spectrum(problem, top=10**9, memory=50_000).eigenvalues) == 59
    wide = Problem(nn.Linear(200, 3), blobs(d=200))
    with pytest.raises(ValueError, match="cannot hold top=603 eigenvalues; give a smaller top or more steps"):
        spectrum(wide, top=10**9)


def test_the_callback_hears_of_every_product_and_may_stop() -> None:
    data, _ = digits(60)
    problem = Problem(mlp((64, 10, 10), init="he", generator=seeded(1)), data)
    heard: list[tuple[int, int]] = []

    def listen(progress: Progress) -> bool:
        heard.append((progress.done, progress.total))
        return len(heard) == stop_at

    stop_at = 3
    seen = spectrum(problem, callback=listen, trace_tolerance=1.0)
    assert [done for done, _ in heard[:3]] == [2, 4, 6]
    assert not seen.converged
    # What the search had, and the fewest probes that tell an error of the trace; the end is the whole of it.
    assert seen.products == 6 + 4
    assert heard[-1] == (seen.products, seen.products)

    stop_at = 0  # never
    heard.clear()
    whole = spectrum(problem, callback=listen, trace_tolerance=0.0, probes=12)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert len({total for _, total in heard[:-1]}) == 1, "a bar that does not move its end"
    stop_at = len(heard) - 2  # in the middle of the probes
    heard.clear()
    ended = spectrum(problem, callback=listen, trace_tolerance=0.0, probes=12)
    assert ended.converged == whole.converged
    assert len(ended.traced.probes) == 8


def test_one_column_or_more() -> None:
    # A pair at the top: in few steps one column sees it once, two see it twice.
    values = torch.cat([torch.linspace(-0.1, 0.1, 398).double(), torch.tensor([6.0, 6.0])])
    one, two = (
        matrix_spectrum(rotated(values), values, top=1, tolerance=0.0, steps=4, columns=columns) for columns in (1, 2)
    )
    assert [int((seen.quadrature.nodes > 5.9).sum()) for seen in (one, two)] == [1, 2]
    # The copy that one column missed is in the rest: the trace counts it, with the error that it causes.
    assert abs(one.trace - 12) <= 4 * one.trace_error
    # Variance of a probe: 2 tr B^2 = 2 (36 + 1.3) beside a copy, 2 * 1.3 at most beside none.
    variances = [seen.trace_error**2 * len(seen.traced.probes) for seen in (one, two)]
    assert variances[0] == pytest.approx(74.6, rel=0.4), "4 standard deviations of the mean of 200 chi^2_1"
    assert variances[1] < 2.8
    assert [len(seen.quadrature.weights) for seen in (one, two)] == [1, 2]
    # By default two where the density of few parameters would be rough, else one.
    few, many = (torch.linspace(-1, 1, count).double() for count in (9_000, 11_000))
    for diagonal, expected in ((few, 2), (many, 1)):
        seen = matrix_spectrum(lambda v, scale=diagonal: scale * v, diagonal, top=1, steps=5, probes=4)
        assert len(seen.quadrature.weights) == expected
    with pytest.raises(ValueError, match="0 vectors"):
        matrix_spectrum(lambda v: v, many, columns=0)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="top=0"):
        spectrum(small_problem(), top=0)
    with pytest.raises(ValueError, match="3 steps of 2 vectors cannot hold top=20"):
        spectrum(small_problem(), top=20, steps=3)
    assert repr(spectrum(small_problem(), steps=6, trace_tolerance=1.0)).startswith("Spectrum(59 parameters, largest")
    with pytest.raises(ValueError, match="positive standard deviation"):
        spectrum(small_problem()).density([0.0], width=0.0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its dependencies use what PyTorch has deprecated
def test_curvlinops_operators_can_be_given_and_agree() -> None:
    curvlinops = pytest.importorskip("curvlinops")
    problem = small_problem(dtype=torch.float64)
    weights = [value for value in problem.model.parameters() if value.requires_grad]
    batch = [(problem.train.x, problem.train.targets)]
    theirs = curvlinops.HessianLinearOperator(problem.model, nn.CrossEntropyLoss(), weights, batch)
    ours = spectrum(problem)
    torch.testing.assert_close(spectrum(problem, operator=theirs).eigenvalues, ours.eigenvalues, rtol=1e-8, atol=1e-8)


def test_hessian_eigenthings_agrees() -> None:
    peer = pytest.importorskip("hessian_eigenthings")
    problem = Problem(small_problem(dtype=torch.float64).model, blobs(dtype=torch.float64))
    batch = [(problem.train.x, problem.train.targets)]
    operator = peer.HessianOperator(problem.model, batch, peer.supervised_loss(nn.CrossEntropyLoss()))
    found = peer.lanczos(operator, k=3, max_iter=50, which="LA", seed=0)
    torch.testing.assert_close(
        found.eigenvalues.sort(descending=True).values.double(),
        spectrum(problem, top=3).eigenvalues,
        rtol=1e-5,
        atol=1e-6,
    )
