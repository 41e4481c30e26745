import copy

import pytest
import torch
from torch import Tensor, nn

from whydeep.approximation.constructive import sawtooth
from whydeep.approximation.pieces import kinks, pieces
from whydeep.approximation.piecewise import obstacle
from whydeep.networks import cnn, mlp


def segment(shape: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start, end = scale * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return start, end


def naive_count(model: nn.Module, start: Tensor, end: Tensor, cells: int) -> int:
    """One plus the changes of d output / dt, by back-propagation, between the middles of many cells."""
    model = copy.deepcopy(model).double().eval()
    slopes = []
    for part in ((torch.arange(cells, dtype=torch.float64) + 0.5) / cells).split(2000):
        t = part.clone().requires_grad_()
        output = model(start + t.reshape(-1, *[1] * start.ndim) * (end - start)).sum(0)
        slopes.append(torch.stack([torch.autograd.grad(one, t, retain_graph=True)[0] for one in output], 1))
    slope = torch.cat(slopes)
    # A kink whose strength is below 1e-9 of the steepest slope is the rounding of the derivative.
    return 1 + int(((slope[1:] - slope[:-1]).abs().amax(1) > 1e-9 * slope.abs().max()).sum())


def seeded(build, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


@pytest.mark.parametrize("k", [*range(1, 14), *(pytest.param(k, marks=pytest.mark.slow) for k in range(14, 19))])
def test_a_sawtooth_has_two_to_the_k_pieces(k: int) -> None:
    found = pieces(sawtooth(k), torch.zeros(1), torch.ones(1))
    assert found.count == 2**k
    assert torch.equal(found.positions, torch.arange(2**k + 1, dtype=torch.float64) / 2**k)
    assert torch.equal(found.slopes.abs(), torch.full((2**k, 1), 2.0**k, dtype=torch.float64))


def test_a_damaged_sawtooth_has_fewer() -> None:
    assert pieces(sawtooth(8, coefficients=(2.0, -3.0)), torch.zeros(1), torch.ones(1)).count < 2**8


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("widths", [(3, 8, 2), (2, 6, 6, 3), (4, 5, 5, 5, 1)])
def test_random_networks_agree_with_the_naive_route(widths: tuple[int, ...], seed: int) -> None:
    model = seeded(lambda: mlp(widths), seed)
    start, end = segment(widths[:1], seed, scale=3.0)
    # 20,000 cells for fewer than 20 kinks: two in one cell are unlikely, and these seeds have none.
    assert pieces(model, start, end).count == naive_count(model, start, end, 20_000)


@pytest.mark.parametrize("seed", range(3))
def test_convolutions_pooling_and_batch_norm_agree_with_the_naive_route(seed: int) -> None:
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.LeakyReLU(0.2),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Sequential(nn.Conv2d(2, 2, 2), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True)),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(2, 3),
        ),
        seed,
    )
    with torch.no_grad():
        model[1].running_mean.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(seed))
        model[1].running_var.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(seed))
    start, end = segment((1, 5, 5), seed)
    assert pieces(model, start, end).count == naive_count(model, start, end, 40_000)


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1}, {"stride": 2, "ceil_mode": True}, {"stride": 1, "dilation": 2}]
)
def test_maximum_alone_agrees_with_the_naive_route(options: dict) -> None:
    model = nn.Sequential(nn.MaxPool2d(3, **options), nn.Flatten())
    start, end = segment((2, 6, 6), 3)
    assert pieces(model, start, end).count == naive_count(model, start, end, 40_000)


def test_values_and_slopes_are_those_of_the_network() -> None:
    model = seeded(lambda: cnn((1, 8, 8), 4, channels=(3, 4), batch_norm=True), 1)
    start, end = segment((1, 8, 8), 1)
    found = pieces(model, start, end)
    double = copy.deepcopy(model).double().eval()
    at = lambda t: double(start + t.reshape(-1, 1, 1, 1) * (end - start))  # noqa: E731
    middles = (found.positions[1:] + found.positions[:-1]) / 2
    with torch.no_grad():
        # float64 rounding through five layers; the chord's middle is the network's value on a linear piece only.
        assert torch.allclose(at(found.positions), found.values, rtol=1e-11, atol=1e-11)
        assert torch.allclose(at(middles), (found.values[1:] + found.values[:-1]) / 2, rtol=1e-11, atol=1e-11)
    rise = (found.values[1:] - found.values[:-1]) - found.slopes * found.positions.diff()[:, None]
    assert rise.abs().max() < 1e-12
    assert found.count > 20


def test_working_in_halves_changes_nothing() -> None:
    model = seeded(lambda: mlp((5, 30, 30, 3)), 0)
    start, end = segment((5,), 0, scale=3.0)
    whole, halves = pieces(model, start, end), pieces(model, start, end, elements=100)
    assert torch.allclose(whole.positions, halves.positions, atol=1e-12)  # the same zeros, rounded differently
    assert whole.count == halves.count > 20


def test_edges() -> None:
    start, end = segment((3,), 0)
    assert pieces(nn.Linear(3, 2), start, end).count == 1
    model = seeded(lambda: mlp((3, 1, 2)), 0)  # width one: at most one zero
    assert pieces(model, start, end).count <= 2
    assert pieces(model, start, start).count == 1  # a segment of length zero
    dead = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        dead[2].weight.zero_()  # units switch, but nothing of it reaches the output
    assert pieces(dead, start, end).count == 1


def test_copies_of_a_unit_make_one_breakpoint() -> None:
    # r(x - 0.3) from ten copies of one unit in other scales: rounding moves their zeros apart by 1e-17.
    scales = torch.linspace(0.1, 3.0, 10, dtype=torch.float64)[:, None]
    model = nn.Sequential(nn.Linear(1, 10), nn.ReLU(), nn.Linear(10, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(scales)
        model[0].bias.copy_(-0.3 * scales[:, 0])
        model[2].weight.fill_(1.0)
    found = pieces(model, torch.zeros(1), torch.ones(1))
    assert found.count == 2
    assert abs(float(found.positions[1]) - 0.3) < 1e-12


def test_one_layer_has_at_most_its_units_plus_one_and_the_bound_counts_them() -> None:
    assert kinks(mlp((3, 8, 6, 2)), (3,)) == (8, 6)
    assert kinks(sawtooth(4), (1,)) == (2, 2, 2, 2)  # the bound 3^4 = 81 against 2^4 = 16 pieces
    # 8 x 8 with 3 channels: 192 units, 16 windows of 4 in each channel give 3 new breakpoints at most each.
    assert kinks(cnn((1, 8, 8), 2, channels=(3,)), (1, 8, 8)) == (192, 3 * 16 * 3)
    # Along x -> +-infinity every unit of a layer of 16 with non-zero weight switches once: 17 pieces exactly.
    model = seeded(lambda: mlp((1, 16, 1)), 0)
    far = torch.full((1,), 1e4)
    assert pieces(model, -far, far).count == 17


def test_what_is_not_piecewise_linear_is_refused_by_name() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    class Squared(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) ** 2

    for model, word in [
        (Own(), "Own"),
        (nn.Sequential(nn.Linear(2, 2), nn.Sigmoid()), "Sigmoid"),
        (nn.Sequential(nn.Linear(2, 2), Squared()), "Squared"),
        (nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)), "statistics of its batch"),
        (nn.Sequential(nn.Flatten(0)), "mixes the samples"),
        (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "indices"),
    ]:
        assert word in str(obstacle(model))
        with pytest.raises(ValueError, match=word):
            pieces(model, torch.zeros(2), torch.ones(2))
    with pytest.raises(ValueError, match="same"):
        pieces(nn.Linear(2, 2), torch.zeros(2), torch.zeros(3))
    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda module, inputs, output: output**2)
    assert "hook" in str(obstacle(hooked))


def test_the_users_model_is_left_alone() -> None:
    model = seeded(lambda: cnn((1, 8, 8), 3, batch_norm=True), 0).train()
    before = copy.deepcopy(model.state_dict())
    pieces(model, *segment((1, 8, 8)))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32
