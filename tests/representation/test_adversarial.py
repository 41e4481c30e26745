from __future__ import annotations

import math

import pytest
import torch
from problems import blobs, digits
from scipy.optimize import linprog
from torch import Tensor, nn

from whydeep.core import Data, InputError, Problem, errors
from whydeep.networks import mlp
from whydeep.networks.cnn import cnn
from whydeep.optimization.backprop import Backprop
from whydeep.representation.adversarial import Attack, attack, halving_radius, random_signs
from whydeep.representation.critical_radius import linear_critical_radius

WIDE = (-1e3, 1e3)


def linear_problem(classes: int = 4, n: int = 30, d: int = 6) -> tuple[nn.Linear, Data]:
    """A random linear classifier in double precision on data that it labels itself."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Linear(d, classes).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(classes, d, generator=generator, dtype=torch.float64))
        model.bias.copy_(torch.randn(classes, generator=generator, dtype=torch.float64))
        x = torch.rand(n, d, generator=generator, dtype=torch.float64)
        y = model(x).argmax(1)
    return model, Data(x, y, "linear", classes=classes)


def network() -> tuple[nn.Module, Data]:
    """A trained network in double precision, and data with bounds."""
    data = blobs(60, dtype=torch.float64)
    model = mlp((3, 12, 3), init="he", generator=torch.Generator().manual_seed(0)).double()
    model = Backprop(lr=0.02, epochs=30).train(Problem(model, data)).model
    return model, Data(data.x, data.y, "blobs", classes=3, bounds=(-2.0, 3.0))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("bounds", [WIDE, (0.0, 1.0)])
def test_a_linear_model_breaks_exactly_at_its_critical_radius(classes: int, bounds: tuple[float, float]) -> None:
    model, data = linear_problem(classes)
    radius = linear_critical_radius(model.weight, model.bias, data.x, data.y, bounds=bounds).detach()
    assert radius.isfinite().sum() > 10
    # As many starts as classes: every other class is aimed at once, and on a linear model its sign is the answer.
    options = {"bounds": bounds, "steps": 4, "restarts": classes}
    for k in radius.isfinite().nonzero().squeeze(1).tolist():
        sample, r = data.take(torch.tensor([k])), float(radius[k])
        # 1e-9: far above the rounding of the scores (1e-15), far below every radius.
        assert attack(model, sample, [r * (1 - 1e-9)], **options).right(math.inf) == 0
        assert attack(model, sample, [r * (1 - 1e-9)], **options).right(r) == 1
        assert attack(model, sample, [r * (1 + 1e-9)], **options).right(r * (1 + 1e-9)) == 0


def test_critical_radius_solves_the_linear_programme() -> None:
    """min r subject to |z - x| <= r, low <= z <= high, (w_j - w_y) z >= b_y - b_j, the least over j, by SciPy."""
    model, data = linear_problem(3, n=12, d=4)
    weight, bias = model.weight.detach(), model.bias.detach()
    got = linear_critical_radius(weight, bias, data.x, data.y, bounds=(0.0, 1.0))
    for x, y, value in zip(data.x, data.y.tolist(), got.tolist(), strict=True):
        best = math.inf
        for j in set(range(3)) - {y}:
            v = (weight[j] - weight[y]).numpy()
            rows = [[*(-v), 0.0]]
            right = [float(bias[j] - bias[y])]
            for i in range(4):
                unit = [float(i == k) for k in range(4)]
                rows += [[*unit, -1.0], [*(-u for u in unit), -1.0]]
                right += [float(x[i]), -float(x[i])]
            found = linprog([0, 0, 0, 0, 1], A_ub=rows, b_ub=right, bounds=[(0, 1)] * 4 + [(0, None)])
            best = min(best, found.fun if found.status == 0 else math.inf)
        assert value == pytest.approx(best, abs=1e-8)


def test_critical_radius_of_a_misread_sample_is_zero_and_of_a_constant_score_infinite() -> None:
    x = torch.tensor([[0.5]])
    assert linear_critical_radius(torch.tensor([[1.0], [-1.0]]), torch.zeros(2), x, torch.tensor([1])).item() == 0
    same = torch.ones(2, 1)
    assert linear_critical_radius(same, torch.tensor([1.0, 0.0]), x, torch.tensor([0])).item() == math.inf


def naive(model: nn.Module, x: Tensor, y: int, radius: float, bounds: tuple[float, float], steps: int) -> bool:
    """Projected gradient ascent on the margin for one sample, as in the docstring, with no active set."""
    z = x.clone()
    fooled = False
    for step in range(steps + 1):
        z = z.detach().requires_grad_()
        f = model(z[None])[0]
        fooled |= int(f.argmax()) != y
        if step == steps:
            break
        other = max((float(f[j].detach()), j) for j in range(len(f)) if j != y)[1]
        (g,) = torch.autograd.grad(f[other] - f[y], z)
        z = z + 2.5 * radius / steps * g.sign()
        z = torch.max(torch.min(z, x + radius), x - radius).clamp(*bounds)
    return fooled


def test_the_attack_equals_its_naive_transcription() -> None:
    model, data = network()
    found = attack(model, data, [0.25], steps=7)
    wrong = errors(model, data)
    expected = [naive(model, x, int(y), 0.25, (-2.0, 3.0), 7) for x, y in zip(data.x, data.y, strict=True)]
    assert [bool(w) or f for w, f in zip(wrong, expected, strict=True)] == (found.fooled_at <= 0.25).tolist()
    assert 5 < found.right(0.25) < 55  # neither all nor none


def test_one_step_is_the_fast_gradient_sign_method() -> None:
    model, data = network()
    x = data.x.clone().requires_grad_()
    f = model(x)
    right = f.gather(1, data.y[:, None])
    margin = f.scatter(1, data.y[:, None], -math.inf).amax(1, keepdim=True) - right
    (g,) = torch.autograd.grad(margin.sum(), x)
    moved = (data.x + 0.3 * g.sign()).clamp(-2.0, 3.0)
    expected = (model(data.x).argmax(1) == data.y) & (model(moved).argmax(1) == data.y)
    assert attack(model, data, [0.3], steps=1).right(0.3) == int(expected.sum())


def test_radius_zero_gives_the_clean_accuracy() -> None:
    model, data = network()
    flipped = Data(data.x, (data.y + (torch.arange(60) < 7)) % 3, "flipped", classes=3, bounds=data.bounds)
    found = attack(model, flipped, [0.0])
    assert found.right(0.0) == 60 - int(errors(model, flipped).sum())
    assert found.gradients == 0
    assert random_signs(model, flipped, 0.0) == found.right(0.0)


def test_perturbations_keep_to_radius_and_bounds_and_are_misread() -> None:
    model, data = network()
    tight = (float(data.x.min()), float(data.x.max()))
    found = attack(model, data, [0.1, 0.4, 2.0], bounds=tight, restarts=2)
    fooled = found.fooled_at.isfinite()
    assert bool((model(found.examples[fooled]).argmax(1) != data.y[fooled]).all())
    distance = (found.examples - data.x).abs().amax(1)
    # x + radius is rounded once: at most one unit in the last place of a number below 4.
    assert bool((distance[fooled] <= found.fooled_at[fooled] + 1e-15).all())
    assert tight[0] <= float(found.examples.min())
    assert float(found.examples.max()) <= tight[1]
    assert torch.equal(found.examples[~fooled], data.x[~fooled])


def test_more_radii_and_restarts_find_no_less() -> None:
    model, data = network()
    few = attack(model, data, [0.1, 0.2, 0.3], steps=3)
    more = attack(model, data, [0.1, 0.2, 0.3], steps=3, restarts=4)
    rights = [few.right(r) for r in few.radii]
    assert rights == sorted(rights, reverse=True)
    assert bool((more.fooled_at <= few.fooled_at).all())


def test_halvings_narrow_the_interval_and_keep_the_median_inside() -> None:
    model, data = network()
    coarse, fine = (attack(model, data, [0.1, 1.0], halvings=h) for h in (0, 8))
    a, b = halving_radius(coarse), halving_radius(fine)
    assert b.high - b.low < (a.high - a.low) / 2
    assert a.low <= b.value <= a.high
    assert 2 * fine.right(b.low) >= fine.right(0.0) >= 2 * fine.right(b.high)


def test_the_halving_radius_by_hand() -> None:
    # Ten right samples, one fooled in each of (0, 1], (1, 2], ..., (9, 10]: half are left at 5.
    radii = tuple(float(k) for k in range(11))
    found = Attack(radii, torch.arange(1, 11, dtype=torch.float64), torch.zeros(10, 1), 0)
    measured = halving_radius(found)
    # P(Binomial(10, 1/2) <= 1) = 11/1024 = 0.0107 < 0.025 <= P(<= 2) = 0.0547, so l = 2: the 2nd was fooled in
    # (1, 2], the 9th in (8, 9].
    assert (measured.low, measured.value, measured.high) == (1.0, 5.0, 9.0)
    never = Attack((0.0, 1.0), torch.full((10,), math.inf, dtype=torch.float64), torch.zeros(10, 1), 0)
    assert (halving_radius(never).low, halving_radius(never).high) == (1.0, math.inf)
    with pytest.raises(ValueError, match="no sample is classified right"):
        halving_radius(Attack((0.0,), torch.zeros(3, dtype=torch.float64), torch.zeros(3, 1), 0))


def test_the_batch_does_not_matter_with_batch_norm_and_the_model_is_left_alone() -> None:
    train, test = digits(300, dtype=torch.float64)
    torch.manual_seed(0)
    model = Backprop(epochs=3).train(Problem(cnn((1, 8, 8), 10, channels=(6,), batch_norm=True).double(), train)).model
    model.train()
    few = test.take(torch.arange(40))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    one = attack(model, few, [0.1], steps=5)
    parts = [attack(model, few.take(torch.arange(k, k + 8)), [0.1], steps=5).fooled_at for k in range(0, 40, 8)]
    assert torch.equal(one.fooled_at, torch.cat(parts))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_gives_the_same_attack() -> None:
    model, data = network()
    one, two = (
        attack(model, data, [0.2], restarts=3, generator=torch.Generator().manual_seed(5)).fooled_at for _ in range(2)
    )
    assert torch.equal(one, two)


def test_random_signs_on_a_linear_model() -> None:
    # f_0 - f_1 = 2 x with x = 0.3: the sign -1 at 0.4 fools half of the samples, at 0.2 none, and the bound 0 all none.
    model = nn.Linear(1, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model.bias.zero_()
    data = Data(torch.full((1000, 1), 0.3, dtype=torch.float64), torch.zeros(1000, dtype=torch.int64), classes=2)
    assert random_signs(model, data, 0.2, bounds=(-1, 1)) == 1000
    # Standard deviation 16 of 500: five of them.
    assert abs(random_signs(model, data, 0.4, bounds=(-1, 1)) - 500) < 80
    assert random_signs(model, data, 0.4, bounds=(0.1, 1)) == 1000


def test_bad_input_is_refused() -> None:
    model, data = linear_problem()
    with pytest.raises(InputError, match="pass --bounds"):
        attack(model, data, [0.1])
    with pytest.raises(InputError, match="outside the bounds"):
        attack(model, data, [0.1], bounds=(0.0, 0.5))
    with pytest.raises(ValueError, match="no negative radius"):
        attack(model, data, [-0.1], bounds=WIDE)
    with pytest.raises(ValueError, match="at least one step"):
        attack(model, data, [0.1], bounds=WIDE, steps=0)
    regression = Data(data.x, data.x[:, :4], "regression")
    with pytest.raises(ValueError, match="no classes"):
        attack(model, regression, [0.1], bounds=WIDE)
