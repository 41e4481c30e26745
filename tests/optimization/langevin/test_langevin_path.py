"""The sums along a path of SGLD against the densities of its steps, written out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from whydeep.optimization.langevin.path import LogRatio, fingerprint
from whydeep.optimization.langevin.sgld import SGLD


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient(w: Tensor) -> Tensor:
    return torch.tanh(w) + 0.5 * w


def prior_gradient(w: Tensor) -> Tensor:
    return 0.4 * w


def log_normal(x: Tensor, mean: Tensor, variance: float) -> float:
    return float((-((x - mean) ** 2) / (2 * variance)).sum()) - len(x) / 2 * math.log(2 * math.pi * variance)


def walk(steps: int, *, follow: bool) -> tuple[SGLD, list[dict[str, Any]]]:
    """Two groups with their own rates, a step size that falls; what every step did."""
    weights = [nn.Parameter(torch.tensor(values, dtype=torch.float64)) for values in ([1.0, -2.0], [0.5])]
    groups = [{"params": [weights[0]]}, {"params": [weights[1]], "lr": 0.05, "beta": 30.0, "weight_decay": 0.2}]
    optimizer = SGLD(groups, 0.1, beta=8.0, weight_decay=0.7, generator=seeded(), accumulate=True)
    record = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        before = [value.detach().clone() for value in weights]
        for value in weights:
            value.grad = gradient(value.detach())
        optimizer.step(prior=[prior_gradient(value) for value in before] if follow else None)
        for group, w, value in zip(optimizer.param_groups, before, weights, strict=True):
            options = {name: group[name] for name in ("lr", "beta", "weight_decay")}
            record.append(options | {"before": w, "after": value.detach().clone()})
    return optimizer, record


def ratio(record: list[dict[str, Any]], prior: Any) -> float:
    """ln of the density of every step under Q over that under P."""
    total = 0.0
    for step in record:
        w, eta = step["before"], step["lr"]
        kept, variance = (1 - eta * step["weight_decay"]) * w, 2 * eta / step["beta"]
        total += log_normal(step["after"], kept - eta * gradient(w), variance)
        total -= log_normal(step["after"], kept - eta * prior(w), variance)
    return total


def test_the_log_ratio_is_that_of_the_densities_of_the_steps() -> None:
    optimizer, record = walk(6, follow=True)
    path = optimizer.path
    assert path.data_free.value == pytest.approx(ratio(record, torch.zeros_like), rel=1e-11)
    assert path.prior is not None
    assert path.prior.value == pytest.approx(ratio(record, prior_gradient), rel=1e-11)
    parts = [ratio(record[group::2], torch.zeros_like) for group in (0, 1)]
    assert [group.value for group in path.groups] == pytest.approx(parts, rel=1e-11)


def test_large_small_strided_and_mixed_tensors_meet_their_own_noise() -> None:
    random = seeded()
    shapes = [(3,), (100, 90), (2, 5), (4,), (128, 64)]
    types = [torch.float32, torch.float32, torch.float64, torch.float32, torch.float64]
    weights = [
        nn.Parameter(torch.randn(*shape, generator=random).to(kind)) for shape, kind in zip(shapes, types, strict=True)
    ]
    drifts = [
        torch.randn(*shape[::-1], generator=random).to(value.dtype).transpose(0, -1)
        for shape, value in zip(shapes, weights, strict=True)
    ]
    before = [value.detach().clone() for value in weights]
    optimizer = SGLD(weights, 0.1, beta=8.0, generator=seeded(), accumulate=True)
    for value in weights:
        value.grad = 0.1 * value.detach()
    optimizer.step(prior=drifts)
    found = optimizer.path
    assert found.prior is not None
    for prior, sums in (([torch.zeros_like(w) for w in before], found.data_free), (drifts, found.prior)):
        slow = 0.0
        for w, value, drift in zip(before, weights, prior, strict=True):
            mean, variance = w.double() - 0.1 * 0.1 * w.double(), 2 * 0.1 / 8
            other = w.double() - 0.1 * drift.double()
            after = value.detach().double()
            slow += float(((after - other).square() - (after - mean).square()).sum()) / (2 * variance)
        # The step itself is rounded to single precision: 1e-7 of weights near 1, a few thousand times, at random.
        assert sums.value == pytest.approx(slow, rel=1e-4)


def test_divergence_and_decay_by_their_formulas() -> None:
    optimizer, record = walk(4, follow=False)
    path = optimizer.path
    terms = [step["beta"] * step["lr"] / 4 * float(gradient(step["before"]).square().sum()) for step in record]
    assert path.data_free.divergence == pytest.approx(math.fsum(terms), rel=1e-13)
    assert path.squared == pytest.approx(
        sum(step["lr"] * float(gradient(step["before"]).square().sum()) for step in record), rel=1e-13
    )
    decayed = 0.0
    for group in (0, 1):
        own, times = record[group::2], terms[group::2]
        total = sum(step["lr"] for step in own)
        until = 0.0
        for step, term in zip(own, times, strict=True):
            until += step["lr"]
            decayed += term * math.exp(-step["weight_decay"] * (total - until) / 2)
    assert path.data_free.decayed == pytest.approx(decayed, rel=1e-12)
    assert path.data_free.decayed < path.data_free.divergence
    assert path.prior is None
    assert path.steps == 4
    assert path.time == pytest.approx(0.1 * (1 + 1 / 2 + 1 / 3 + 1 / 4))
    assert [run[2] for run in path.rates] == [1, 1, 1, 1]
    assert not path.one_rate


def test_equal_rates_are_one_run() -> None:
    value = nn.Parameter(torch.ones(2).double())
    optimizer = SGLD([value], 0.1, beta=2.0, accumulate=True)
    for _ in range(5):
        value.grad = value.detach().clone()
        optimizer.step()
    assert optimizer.path.rates == ((0.1, 2.0, 5),)
    assert optimizer.path.one_rate


def test_the_ratio_averages_to_one_under_the_prior() -> None:
    # E_Q exp(-ln dQ/dP) = 1: 4,000 one-step paths; the variance of exp(-r) is e^(2 KL) - 1 with KL = beta eta g^2 / 4.
    beta, eta, g, m = 2.0, 0.5, 1.0, 4000
    value = nn.Parameter(torch.zeros(1).double())
    generator = seeded()
    total = 0.0
    for _ in range(m):
        optimizer = SGLD([value], eta, beta=beta, generator=generator, accumulate=True)
        value.grad = torch.full((1,), g).double()
        optimizer.step()
        total += math.exp(-optimizer.path.data_free.value)
    assert total / m == pytest.approx(1.0, abs=4 * math.sqrt((math.exp(2 * beta * eta * g**2 / 4) - 1) / m))


def test_accumulating_does_not_change_the_path() -> None:
    ends = []
    for accumulate in (False, True):
        value = nn.Parameter(torch.ones(3))
        optimizer = SGLD([value], 0.1, beta=2.0, generator=seeded(), accumulate=accumulate)
        for _ in range(3):
            value.grad = value.detach().clone()
            optimizer.step()
        ends.append(value.detach())
    assert torch.equal(*ends)


def test_a_step_without_noise_cannot_be_followed_unless_it_does_not_move() -> None:
    assert LogRatio().longer(heat=math.inf, squared=1.0, inner=0.0, decay=1.0).value == math.inf
    assert LogRatio().longer(heat=math.inf, squared=0.0, inner=0.0, decay=1.0).value == 0.0
    value = nn.Parameter(torch.ones(2))
    optimizer = SGLD([value], 0.1, beta=math.inf, accumulate=True)
    value.grad = torch.ones(2)
    optimizer.step()
    assert optimizer.path.data_free.value == math.inf


def test_a_prior_that_missed_a_step_is_none() -> None:
    value = nn.Parameter(torch.ones(2).double())
    optimizer = SGLD([value], 0.1, beta=2.0, accumulate=True)
    for prior in ([torch.ones(2).double()], None, [torch.ones(2).double()]):
        value.grad = value.detach().clone()
        optimizer.step(prior=prior)
    assert optimizer.path.prior is None


def test_a_prior_that_follows_everything_costs_nothing() -> None:
    value = nn.Parameter(torch.ones(2).double())
    optimizer = SGLD([value], 0.1, beta=2.0, accumulate=True)
    value.grad = torch.ones(2).double()
    optimizer.step(prior=[value.grad])
    assert optimizer.path.prior == LogRatio()


def test_an_idle_parameter_and_a_group_that_joins_later() -> None:
    one, idle, late = (nn.Parameter(torch.ones(1).double()) for _ in range(3))
    optimizer = SGLD([one, idle], 0.1, beta=2.0, accumulate=True)
    one.grad = torch.ones(1).double()
    optimizer.step(prior=[torch.zeros(1).double(), None])
    optimizer.add_param_group({"params": [late], "lr": 0.3, "beta": 4.0})
    late.grad = torch.full((1,), 2.0).double()
    optimizer.step(prior=[torch.zeros(1).double(), None, None])
    path = optimizer.path
    # 2 * (2 * 0.1 / 4) and 4 * 0.3 * 4 / 4; without a drift of its own the prior is the data-free one.
    assert [group.divergence for group in path.groups] == pytest.approx([0.1, 1.2])
    assert path.prior is not None
    assert path.prior.value == pytest.approx(path.data_free.value)


@pytest.mark.parametrize("through_file", [False, True])
def test_the_sums_go_on_after_a_checkpoint(tmp_path: Any, through_file: bool) -> None:
    optimizer, _ = walk(3, follow=True)
    stored = copy.deepcopy(optimizer.state_dict())
    if through_file:
        torch.save(stored, tmp_path / "state.pt")
        stored = torch.load(tmp_path / "state.pt", weights_only=True)
    other, _ = walk(1, follow=True)
    other.load_state_dict(stored)
    assert other.path.strayed  # the sums are another path's until its weights are restored, too
    with torch.no_grad():
        for group, source in zip(other.param_groups, optimizer.param_groups, strict=True):
            for value, stored_value in zip(group["params"], source["params"], strict=True):
                value.copy_(stored_value)
    assert other.path == optimizer.path
    twin = copy.deepcopy(optimizer)
    assert twin.path == optimizer.path
    for group in twin.param_groups:
        for value in group["params"]:
            value.grad = torch.ones_like(value)
    twin.step()
    assert twin.path.steps == 4
    assert optimizer.path.steps == 3


def test_a_longer_gradient_than_the_clip_is_refused_before_anything_moves() -> None:
    first, second = (nn.Parameter(torch.zeros(1).double()) for _ in range(2))
    optimizer = SGLD([{"params": [first]}, {"params": [second]}], 0.1, beta=1.0, clip=1.0, accumulate=True)
    first.grad, second.grad = torch.full((1,), 0.6).double(), torch.full((1,), 0.8).double()
    optimizer.step()  # norm 1 over both groups
    place = first.detach().clone()
    second.grad = torch.full((1,), 0.9).double()
    with pytest.raises(ValueError, match=r"norm 1\.082, more than clip=1; let clipped_gradients"):
        optimizer.step()
    assert torch.equal(first.detach(), place)
    assert optimizer.path.steps == 1
    assert optimizer.path.clip == 1.0


def test_the_clip_of_a_path_is_that_of_its_loosest_step() -> None:
    value = nn.Parameter(torch.zeros(1))
    for later, found in ((0.5, 1.0), (7.0, 7.0), (None, None)):
        optimizer = SGLD([value], 0.1, beta=1.0, clip=1.0, accumulate=True)
        for clip in (1.0, later, 1.0):
            optimizer.clip = clip
            value.grad = torch.full((1,), 0.1)
            optimizer.step()
        assert optimizer.path.clip == found


def steps(optimizer: SGLD, *weights: nn.Parameter, count: int = 1) -> None:
    for _ in range(count):
        for value in weights:
            value.grad = value.detach().clone()
        optimizer.step()


def test_the_path_knows_its_points_and_when_something_else_moved_the_weights() -> None:
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3, 2).double())
    optimizer = SGLD([one, two], 0.1, beta=2.0, accumulate=True)
    steps(optimizer, one, two, count=2)
    earlier = [two.detach().clone(), one.detach().clone()]  # the order is of no matter
    steps(optimizer, one, two, count=2)
    path = optimizer.path
    assert len(path.visited) == path.steps == 4
    assert path.shapes == ((2,), (3, 2))
    assert path.place([one, two]) == 4
    assert path.place(earlier) == 2
    assert path.place([torch.ones(2), torch.ones(3, 2).double()]) is None  # the start
    assert not path.strayed

    torch.optim.Adam([one], 1e-3).step()
    assert optimizer.path.strayed
    assert optimizer.path.place(earlier) == 2
    with torch.no_grad():
        one.copy_(earlier[1])  # back at another point: the next step does not start from where the last one ended
    steps(optimizer, one, two)
    assert optimizer.path.strayed
    assert optimizer.path.place([one, two]) is None
    resumed = SGLD([one, two], 0.1, beta=2.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert resumed.path.strayed
    assert copy.deepcopy(optimizer).path.strayed


def test_weights_moved_and_put_back_have_not_strayed() -> None:
    value = nn.Parameter(torch.ones(2))
    optimizer = SGLD([value], 0.1, beta=2.0, accumulate=True)
    steps(optimizer, value)
    kept = value.detach().clone()
    with torch.no_grad():
        value.add_(1.0)
    value.data = kept
    steps(optimizer, value)
    assert not optimizer.path.strayed


def test_a_group_that_joins_is_no_straying() -> None:
    one, late = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = SGLD([one], 0.1, beta=2.0, accumulate=True)
    steps(optimizer, one)
    optimizer.add_param_group({"params": [late]})
    assert not optimizer.path.strayed
    steps(optimizer, one, late)
    assert not optimizer.path.strayed
    assert optimizer.path.place([one, late]) == 2


@pytest.mark.parametrize("how", ["data", "set", "numpy", "closure"])
def test_weights_moved_behind_the_back_of_autograd_have_strayed(how: str) -> None:
    # None of these ways but the last is counted in the tensor's version.
    value = nn.Parameter(torch.ones(4))
    optimizer = SGLD([value], 0.1, beta=2.0, accumulate=True)
    steps(optimizer, value)

    def move() -> float:
        if how == "data":
            value.data.mul_(1.5)
        elif how == "set":
            value.data = value.data * 1.5
        elif how == "numpy":
            value.detach().numpy()[0] += 1.0
        else:
            with torch.no_grad():
                value.clamp_(0.0, 0.5)
        return 0.0

    value.grad = value.detach().clone()
    if how == "closure":
        optimizer.step(move)
    else:
        move()
        optimizer.step()
    assert optimizer.path.strayed
    assert optimizer.path.place([value]) is None


def test_a_fingerprint_is_the_sum_of_the_bits() -> None:
    # 1.0 has the bits 0x3F800000 in single, 0x3FF00000 00000000 in double and 0x3C00 in half precision.
    one = 0x3F800000
    assert fingerprint([torch.tensor(1.0), torch.ones(2, 2)]) == one + 2 * (one + (one << 32))
    assert fingerprint([torch.ones(3).double()]) == 3 * 0x3FF00000 * 2**32 % 2**64
    assert fingerprint([torch.ones(5).half()]) == 0x3C00 * (1 + 2**16 + 2**32 + 2**48) + 0x3C00
    wide = torch.randn(6, 4, generator=seeded())
    assert fingerprint([wide.T[::2]]) == fingerprint([wide.T[::2].contiguous()])
    flat = torch.randn(9, generator=seeded())
    assert fingerprint([flat[1:]]) == fingerprint([flat[1:].clone()])  # a view that starts within a word
    assert fingerprint([]) == fingerprint([torch.empty(0)]) == 0


@pytest.mark.parametrize("factor", [-1.0, 2.0, 0.5])
def test_a_fingerprint_sees_a_change_of_sign_or_of_scale(factor: float) -> None:
    # Sums modulo 2^32 do not: 2^14 signs, or 2^14 steps of the exponent's last bit 2^23, are multiples of 2^32.
    weights = torch.randn(128, 128, generator=seeded())
    assert fingerprint([factor * weights]) != fingerprint([weights])


def test_sums_keep_their_digits_in_long_tensors_and_in_half_precision() -> None:
    # In one piece 2^23 equal squares lose 4e-3 of their sum in single precision; a thousand in half precision more.
    for kind, size, share in ((torch.float32, 1 << 23, 1e-3), (torch.bfloat16, 1 << 16, 1e-3)):
        value = nn.Parameter(torch.zeros(size, dtype=kind))
        optimizer = SGLD([value], 0.5, beta=8.0, generator=seeded(), accumulate=True)
        value.grad = torch.full_like(value, 0.1)
        optimizer.step()
        exact = size * float(value.grad[0].double()) ** 2 * 8.0 * 0.5 / 4
        assert optimizer.path.data_free.divergence == pytest.approx(exact, rel=share)


def test_a_gradient_that_is_not_finite_shows_without_noise_too() -> None:
    value = nn.Parameter(torch.ones(2))
    optimizer = SGLD([value], 0.1, beta=math.inf, accumulate=True)
    value.grad = torch.tensor([math.nan, 0.0])
    optimizer.step()
    assert math.isnan(optimizer.path.data_free.value)


def test_noise_of_no_given_generator_is_not_what_the_weights_were_made_of() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        value = nn.Parameter(torch.randn(1000, dtype=torch.float64))
        before = value.detach().clone()
        optimizer = SGLD([value], 0.5, beta=1.0)  # noise of variance 1
        value.grad = torch.zeros_like(value)
        optimizer.step()
    noise = value.detach() - before
    # The correlation of independent draws is N(0, 1/1000).
    assert abs(float(torch.corrcoef(torch.stack([noise, before]))[0, 1])) < 5 / math.sqrt(1000)


def test_rounding_is_the_divergence_of_last_places() -> None:
    one, two = nn.Parameter(torch.full((3,), 2.0)), nn.Parameter(torch.ones(1).double())
    optimizer = SGLD([{"params": [one]}, {"params": [two], "lr": 0.5}], 0.1, beta=8.0, accumulate=True)
    steps(optimizer, one, two, count=2)
    first = 2 * (8 / (4 * 0.1)) * (2.0**-23) ** 2 * float(one.detach().double().square().sum())
    second = 2 * (8 / (4 * 0.5)) * (2.0**-52) ** 2 * float(two.detach().square().sum())
    assert optimizer.path.rounding == pytest.approx(first + second, rel=1e-12)


def test_bad_use_is_refused() -> None:
    value = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="accumulate=True"):
        _ = SGLD([value], 0.1, beta=1.0).path
    with pytest.raises(ValueError, match="clip is 0"):
        SGLD([value], 0.1, beta=1.0, clip=0.0)
    value.grad = torch.zeros(1)
    with pytest.raises(ValueError, match="2 drifts of the prior for 1 parameters"):
        SGLD([value], 0.1, beta=1.0, accumulate=True).step(prior=[torch.zeros(1)] * 2)
