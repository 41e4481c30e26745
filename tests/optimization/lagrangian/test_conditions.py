import math
from itertools import pairwise

import pytest
import torch
from problems import blobs
from torch import nn

from whydeep.core import Data, InputError, Problem
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.lagrangian.kkt import State, kkt_residuals, multipliers_of, theorem_conditions


def network(widths=(3, 5, 4, 3), bias=False, activation=nn.Sigmoid):
    layers = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=bias), activation()]
    model = nn.Sequential(*layers[:-1]).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7, generator=generator)
    return model


def problem(model=None, *, n=12, loss="squared"):
    return Problem(model or network(), blobs(n, dtype=torch.float64), loss=loss)


def slide(x, y, r1, r2, beta1, beta2, beta3):
    """The slide, transcribed for columns as samples: B and the thresholds of beta_3, beta_2, beta_1, lambda."""
    frobenius_x = math.sqrt((x.T**2).sum())
    frobenius_y = math.sqrt((y.T**2).sum())
    scaled = frobenius_x / math.sqrt(x.T.shape[1])
    size = max(2 * r1**0.5 / scaled, (2 * r2**0.5 / scaled) ** 0.5, (frobenius_y / frobenius_x) ** (1 / 3))
    b = 16 * (beta3 + 1) * size**2
    c = 11 * (beta2 + 1) * size**4 * frobenius_x
    ridge = (
        3 / 4 * beta1 * size * frobenius_x**3,
        10 * beta2 * size**4 * frobenius_x**3,
        4 * beta3 * size**4 * frobenius_x**2,
    )
    return size, (2, b, c, *ridge)


@pytest.mark.parametrize(
    ("scale", "target", "widths"),
    [
        (1.0, 1.0, (3, 5, 4, 3)),  # the first term of B is the largest
        (40.0, 1.0, (3, 2, 4, 3)),  # the second
        (40.0, 4e3, (3, 2, 4, 3)),  # the third
    ],
)
def test_thresholds_are_the_slides(scale, target, widths):
    x = scale * blobs(12, dtype=torch.float64).x
    y = target * torch.ones(12, 3, dtype=torch.float64)
    given = Problem(network(widths), Data(x, y), loss="squared")
    found = theorem_conditions(given, (7.0, 5.0, 3.0), (0.3, 0.1, 0.2))
    size, thresholds = slide(x.numpy(), y.numpy(), widths[1], widths[2], 7.0, 5.0, 3.0)
    assert found.size == pytest.approx(size, rel=1e-12)
    assert [c.threshold for c in found.conditions] == pytest.approx(thresholds, rel=1e-12)
    # lambda stands for the least of the ridges
    assert [c.value for c in found.conditions] == [3.0, 5.0, 7.0, 0.1, 0.1, 0.1]
    assert [c.ratio for c in found.conditions] == pytest.approx(
        [v / t for v, t in zip([3, 5, 7, 0.1, 0.1, 0.1], thresholds, strict=True)]
    )
    assert [c.holds for c in found.conditions] == [True, False, False, False, False, False]
    assert found.outside == ()
    assert not found.hold
    assert found.reason.startswith("beta_2 is ")


def test_the_smallest_compliant_parameters_comply_and_smaller_ones_do_not():
    given = problem()
    betas, ridge = theorem_conditions(given).compliant()
    assert theorem_conditions(given, betas, ridge).hold
    assert theorem_conditions(given, betas, ridge).reason == ""
    for index in range(3):
        smaller = tuple(b * (0.999 if i == index else 1) for i, b in enumerate(betas))
        assert not theorem_conditions(given, smaller, ridge).hold
    assert not theorem_conditions(given, betas, 0.999 * ridge).hold
    assert not theorem_conditions(given, betas, (ridge, 0.999 * ridge, ridge)).hold


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("target", [1e-3, 1.0, 1e6])
def test_compliance_leaves_at_most_a_thirty_third_of_the_targets_whatever_the_data(scale, target):
    x = scale * blobs(12, dtype=torch.float64).x
    given = Problem(network(), Data(x, torch.full((12, 3), target, dtype=torch.float64)), loss="squared")
    betas, ridge = theorem_conditions(given).compliant()
    cap = theorem_conditions(given, betas, ridge).cap
    assert cap is not None
    assert 0 < cap <= 1 / 33
    # 1 / (1 + ridge / (n r_2)), n = 12, r_2 = 4
    assert cap == pytest.approx(1 / (1 + ridge / 48), rel=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_the_cap_holds_at_a_kkt_point(bias):
    # L-BFGS on the sum loss with a ridge near n r_2, where the cap is about a half and the outputs are not 0.
    given, ridge = problem(network(bias=bias)), 20.0
    model = given.copy()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = given.per_sample(model(given.train.x), given.train.targets).sum()
        loss = loss + ridge / 2 * sum(p.square().sum() for p in model.parameters())
        loss.backward()
        return loss

    optimizer.step(closure)
    reached = given.with_model(model)
    assert kkt_residuals(reached, ridge=ridge).norm < 1e-6
    cap = theorem_conditions(reached, 1.0, ridge).cap
    share = float(model(given.train.x).detach().norm()) / math.sqrt(12)  # one-hot targets: ||Y||^2 = n
    assert 0.05 < share <= cap


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: problem(network(bias=True)), "biases"),
        (lambda: problem(network(activation=nn.Tanh)), "tanh"),
        (lambda: problem(loss="cross_entropy"), "cross_entropy"),
        (lambda: problem(network((3, 4, 3))), "these are 2"),
    ],
)
def test_what_the_theorem_does_not_speak_of_is_said(given, words):
    found = theorem_conditions(given(), 1e30, 1e60)
    assert words in found.reason
    assert not found.hold


def test_bad_input():
    with pytest.raises(ValueError, match="lecture's constants are for three"):
        theorem_conditions(problem(network((3, 4, 3)))).compliant()
    with pytest.raises(ValueError, match="beta has 2 numbers for 3 layers"):
        theorem_conditions(problem(), (1.0, 2.0))
    with pytest.raises(ValueError, match="ridge is -1"):
        theorem_conditions(problem(), 1.0, -1)
    zero = torch.zeros(4, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="all inputs are zero"):
        theorem_conditions(Problem(network(), Data(zero, zero), loss="squared"))
    with pytest.raises(InputError, match="Dropout"):
        theorem_conditions(problem(nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 3)).double()))


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n", [1, 12])
def test_multipliers_and_residuals_of_a_network_are_autograds(loss, bias, n):
    model = network(bias=bias)
    given = problem(model, n=n, loss=loss)
    value, states = given.train.x, []
    for module in model:
        value = module(value)
        if not isinstance(module, nn.Linear) or module is model[-1]:
            states.append(value)
    total = given.per_sample(value, given.train.targets).sum()
    expected = torch.autograd.grad(total, states, retain_graph=True)
    for one, other in zip(multipliers_of(given), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)  # rounding
    total = total + 0.15 * sum(p.square().sum() for p in model.parameters())
    linears = [module for module in model if isinstance(module, nn.Linear)]
    found = kkt_residuals(given, ridge=0.3)
    for linear, residual, norms in zip(linears, found.weights, found.by_layer, strict=True):
        parts = torch.autograd.grad(total, list(linear.parameters()), retain_graph=True)
        whole = torch.cat([part.reshape(len(linear.weight), -1) for part in parts], 1)
        torch.testing.assert_close(residual, whole, rtol=1e-10, atol=1e-12)
        assert norms == pytest.approx((float(whole.norm()), 0, 0), rel=1e-10, abs=1e-12)


def test_residuals_of_a_state_are_those_of_the_state():
    given = problem()
    chain = Chain.of(given.model)
    state = State.feasible(chain, chain.weights(), chain.rows(given.train))
    found = kkt_residuals(given, state, ridge=(0.1, 0.2, 0.3))
    # Multipliers zero: the weights' residual is the ridge alone, the last state's is V_N - Y.
    for residual, ridge, weight in zip(found.weights, (0.1, 0.2, 0.3), state.weights, strict=True):
        torch.testing.assert_close(residual, ridge * weight)
    one_hot = torch.eye(3, dtype=torch.float64)[given.train.targets]
    torch.testing.assert_close(found.states[-1], state.states[-1] - one_hot)
    assert math.sqrt(sum(norm**2 for layer in found.by_layer for norm in layer)) == pytest.approx(found.norm)
