"""The step of SGLD: its two terms, its noise, its options, and what it samples."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from problems import small_problem
from scipy import integrate, stats
from torch import Tensor, nn

from whydeep.optimization import Backprop
from whydeep.optimization.langevin.sgld import SGLD


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(*values: list[float]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in values]


def test_one_step_is_the_lectures_update() -> None:
    eta, beta, decay = 0.1, 7.0, 0.5
    first, second = weights([1.0, -2.0], [3.0])
    first.grad, second.grad = torch.tensor([0.5, 4.0]).double(), torch.tensor([-1.0]).double()
    z = torch.randn(3, generator=seeded(), dtype=torch.float64)  # one draw for both
    expected = [
        value.detach() - eta * (value.grad + decay * value.detach()) + math.sqrt(2 * eta / beta) * noise
        for value, noise in ((first, z[:2]), (second, z[2:]))
        if value.grad is not None
    ]
    SGLD([first, second], eta, beta=beta, weight_decay=decay, generator=seeded()).step()
    for value, target in zip((first, second), expected, strict=True):
        torch.testing.assert_close(value.detach(), target, rtol=1e-14, atol=0)


def test_the_noise_is_standard_normal_times_its_factor_and_independent_of_step_and_place() -> None:
    n = 200_000
    (value,) = weights([0.0] * n)
    value.grad = torch.zeros_like(value)
    optimizer = SGLD([value], 0.02, beta=5.0, generator=seeded())
    draws = []
    for _ in range(2):
        before = value.detach().clone()
        optimizer.step()
        draws.append((value.detach() - before) / math.sqrt(2 * 0.02 / 5))
    # Standard errors of n normal draws: mean 1/sqrt(n), variance sqrt(2/n), correlation 1/sqrt(n), kurtosis
    # sqrt(24/n); four of each.
    for z in draws:
        assert abs(float(z.mean())) < 4 / math.sqrt(n)
        assert abs(float(z.var()) - 1) < 4 * math.sqrt(2 / n)
        assert abs(stats.kurtosis(z.numpy())) < 4 * math.sqrt(24 / n)
        assert abs(float((z[1:] * z[:-1]).mean())) < 4 / math.sqrt(n)
    assert abs(float((draws[0] * draws[1]).mean())) < 4 / math.sqrt(n)


@pytest.mark.parametrize("options", [{"beta": math.inf}, {"temperature": 0.0}])
def test_without_noise_it_is_gradient_descent(options: dict[str, float]) -> None:
    one, other = weights([1.0, 2.0], [1.0, 2.0])
    a = SGLD([one], 0.1, weight_decay=0.3, generator=seeded(), **options)
    b = torch.optim.SGD([other], 0.1, weight_decay=0.3)
    for _ in range(5):
        for value, optimizer in ((one, a), (other, b)):
            optimizer.zero_grad()
            value.pow(4).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    torch.testing.assert_close(one, other, rtol=1e-13, atol=0)


def moved(groups: Any, **options: Any) -> None:
    SGLD(groups, generator=seeded(), **options).step()


def test_temperature_is_one_over_beta() -> None:
    one, other = weights([1.0, 2.0], [1.0, 2.0])
    one.grad = other.grad = torch.ones(2).double()
    moved([one], lr=0.1, beta=4.0)
    moved([other], lr=0.1, temperature=0.25)
    assert torch.equal(one, other)


def test_groups_have_their_own_options() -> None:
    hot, cold = weights([0.0] * 1000, [1.0] * 1000)
    hot.grad = cold.grad = torch.ones(1000).double()
    moved([{"params": [hot], "temperature": 4.0}, {"params": [cold], "lr": 0.5, "beta": math.inf}], lr=0.1, beta=1.0)
    # Spread sqrt(2 * 0.1 * 4) within four standard errors 1/sqrt(2n); the other group: 1 - 0.5.
    assert float(hot.detach().std()) == pytest.approx(math.sqrt(0.8), rel=4 / math.sqrt(2000))
    assert torch.equal(cold.detach(), torch.full((1000,), 0.5).double())


def test_a_parameter_without_gradient_stays_and_others_get_the_draw() -> None:
    one, idle, other = weights([0.0], [7.0], [0.0])
    one.grad = other.grad = torch.zeros(1).double()
    SGLD([one, idle, other], 0.5, beta=1.0, generator=seeded()).step()
    z = torch.randn(2, generator=seeded(), dtype=torch.float64)
    assert idle.item() == 7.0
    torch.testing.assert_close(torch.stack([one.detach()[0], other.detach()[0]]), z, rtol=1e-14, atol=0)


def test_types_and_odd_shapes_mix() -> None:
    single = nn.Parameter(torch.zeros(2, 3))
    scalar = nn.Parameter(torch.zeros((), dtype=torch.float64))
    empty = nn.Parameter(torch.zeros(0, 4))
    wide = nn.Parameter(torch.zeros(5, 4).t())  # not contiguous
    for value in (single, scalar, empty, wide):
        value.grad = torch.zeros_like(value)
    SGLD([single, scalar, empty, wide], 0.5, beta=1.0, generator=seeded()).step()
    moved_values = torch.cat([single.detach().double().flatten(), scalar.detach()[None], wide.detach().flatten()])
    assert (moved_values != 0).all()
    assert len(set(moved_values.tolist())) == 27


def test_a_closure_is_called_with_gradients_on() -> None:
    (value,) = weights([3.0])
    optimizer = SGLD([value], 0.1, beta=math.inf)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = value.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.no_grad():
        assert float(optimizer.step(closure).detach()) == 9.0
    torch.testing.assert_close(value.detach(), torch.tensor([2.4]).double())  # 3 - 0.1 * 6


def run(optimizer: SGLD, value: nn.Parameter, steps: int) -> Tensor:
    for _ in range(steps):
        value.grad = value.detach().clone()
        optimizer.step()
    return value.detach().clone()


@pytest.mark.parametrize("through_file", [False, True])
def test_a_stored_state_goes_on_where_it_was(tmp_path: Any, through_file: bool) -> None:
    (value,) = weights([1.0, 2.0])
    optimizer = SGLD([value], 0.1, beta=2.0, weight_decay=0.1, generator=seeded())
    run(optimizer, value, 3)
    stored, place = copy.deepcopy(optimizer.state_dict()), value.detach().clone()
    if through_file:
        torch.save(stored, tmp_path / "state.pt")
        stored = torch.load(tmp_path / "state.pt", weights_only=True)
    expected = run(optimizer, value, 3)
    (other,) = weights(place.tolist())
    restored = SGLD([other], 9.9, temperature=9.9, generator=seeded(99))
    restored.load_state_dict(stored)
    assert torch.equal(run(restored, other, 3), expected)


def test_a_copy_goes_on_by_itself() -> None:
    (value,) = weights([1.0, 2.0])
    optimizer = SGLD([value], 0.1, beta=2.0, generator=seeded())
    run(optimizer, value, 3)
    twin = copy.deepcopy(optimizer)
    (copied,) = twin.param_groups[0]["params"]
    assert torch.equal(run(twin, copied, 3), run(optimizer, value, 3))


def test_a_schedule_changes_step_and_noise() -> None:
    (value,) = weights([0.0] * 1000)
    value.grad = torch.zeros_like(value)
    optimizer = SGLD([value], 0.08, beta=1.0, generator=seeded())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.25)
    for eta in (0.08, 0.02):
        before = value.detach().clone()
        optimizer.step()
        schedule.step()
        assert float((value.detach() - before).std()) == pytest.approx(math.sqrt(2 * eta), rel=4 / math.sqrt(2000))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.1}, "exactly one of them"),
        ({"lr": 0.1, "beta": 1.0, "temperature": 1.0}, "exactly one of them"),
        ({"lr": 0.1, "beta": 0.0}, "beta is 0.0; give a number > 0"),
        ({"lr": 0.1, "beta": math.nan}, "beta is nan"),
        ({"lr": 0.1, "temperature": -1.0}, "temperature is -1.0; give a number >= 0"),
        ({"lr": -0.1, "beta": 1.0}, "lr is -0.1; give a finite number >= 0"),
        ({"lr": math.inf, "beta": 1.0}, "lr is inf; give a finite number >= 0"),
        ({"lr": 0.1, "beta": 1.0, "weight_decay": -1.0}, "weight_decay is -1.0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SGLD(weights([1.0]), **options)


def test_bad_options_of_a_group_are_refused() -> None:
    for group, message in (({"beta": 1.0, "temperature": 1.0}, "exactly one"), ({"lr": -1.0}, "lr is -1.0")):
        with pytest.raises(ValueError, match=message):
            SGLD([{"params": weights([1.0]), **group}], 0.1, beta=1.0)


def test_sparse_gradients_are_refused() -> None:
    layer = nn.Embedding(3, 2, sparse=True)
    layer(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse=False"):
        SGLD(layer.parameters(), 0.1, beta=1.0).step()


def test_no_global_generator_is_touched() -> None:
    (value,) = weights([1.0])
    before = torch.random.get_rng_state()
    run(SGLD([value], 0.1, beta=1.0), value, 2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_backprop_gives_each_seed_its_own_noise() -> None:
    problem = small_problem()
    # Full batch: nothing but the noise is random.
    solver = Backprop(SGLD, lr=0.01, epochs=2, batch_size=None, options={"beta": 50.0})
    first, again, other = (solver.train(problem, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.history["loss"], again.history["loss"])
    assert not torch.equal(first.history["loss"], other.history["loss"])


def test_mini_batches_heat_the_chain() -> None:
    # F(w) = (w - x)^2 / 2 over samples of variance s2, one sample a step: w' = (1 - eta) w + eta x + noise, so
    # v = (eta^2 s2 + 2 eta / beta) / (1 - (1 - eta)^2), above the 1/beta of Gibbs.
    eta, beta, s2, chains = 0.2, 5.0, 1.0, 20_000
    (value,) = weights([0.0] * chains)
    optimizer = SGLD([value], eta, beta=beta, generator=seeded(1))
    generator = seeded(2)
    for _ in range(60):  # (1 - eta)^(2 * 60) = 2e-12 of the start is left
        x = math.sqrt(s2) * torch.randn(chains, generator=generator, dtype=torch.float64)
        value.grad = value.detach() - x
        optimizer.step()
    expected = (eta**2 * s2 + 2 * eta / beta) / (1 - (1 - eta) ** 2)
    assert expected > 1.4 / beta
    assert float(value.detach().square().mean()) == pytest.approx(expected, rel=4 * math.sqrt(2 / chains))


def test_a_tilted_double_well_is_occupied_as_gibbs_says() -> None:
    def energy(w: Any) -> Any:
        return (w**2 - 1) ** 2 / 4 + 0.1 * w

    beta, chains = 4.0, 5000
    (value,) = weights([0.0] * chains)  # on the top: both wells are reached at once
    optimizer = SGLD([value], 0.02, beta=beta, generator=seeded())
    # Mean time over the barrier is about 2 pi/sqrt(2) e^(beta/4) = 12 without the tilt (Kramers); 1500 steps are 30.
    for _ in range(1500):
        w = value.detach()
        value.grad = w**3 - w + 0.1
        optimizer.step()
    mass = [integrate.quad(lambda w: math.exp(-beta * energy(w)), low, high)[0] for low, high in ((-4, 0), (0, 4))]
    left = mass[0] / sum(mass)
    measured = float((value.detach() < 0).double().mean())
    # Four standard errors of 5,000 independent chains, and 0.01 for the step size (its order is eta).
    assert measured == pytest.approx(left, abs=4 * math.sqrt(left * (1 - left) / chains) + 0.01)
    assert abs(measured - 0.5) > 0.05  # the tilt is seen


def test_single_precision_noise_is_stored_and_restored() -> None:
    value = nn.Parameter(torch.zeros(5))
    optimizer = SGLD([value], 0.1, beta=2.0, generator=seeded())
    run(optimizer, value, 3)
    stored, place = copy.deepcopy(optimizer.state_dict()), value.detach().clone()
    expected = run(optimizer, value, 3)
    other = nn.Parameter(place)
    restored = SGLD([other], 0.1, beta=2.0, generator=seeded(99))
    restored.load_state_dict(stored)
    assert torch.equal(run(restored, other, 3), expected)


def test_single_precision_samples_the_gibbs_variance() -> None:
    # F = w^2: a = 2, variance 1 / (beta a (1 - eta a / 2)); (1 - 2 eta)^(2 * 40) = 2e-8 of the start is left.
    value = nn.Parameter(torch.zeros(100_000))
    optimizer = SGLD([value], 0.1, beta=3.0, generator=seeded())
    for _ in range(40):
        value.grad = 2 * value.detach()
        optimizer.step()
    assert float(value.detach().double().square().mean()) == pytest.approx(1 / (6 * 0.9), rel=4 * math.sqrt(2 / 1e5))
