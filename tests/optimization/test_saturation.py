import math

import pytest
import torch
from problems import blobs, small_problem
from torch import nn

from whydeep.core import Data, InputError
from whydeep.networks import mlp
from whydeep.optimization.saturation import saturation, update_sizes

ACTIVATIONS = {
    "sigmoid": lambda u: 1 / (1 + math.exp(-u)),
    "tanh": math.tanh,
    "silu": lambda u: u / (1 + math.exp(-u)),
    "softplus": lambda u: math.log1p(math.exp(u)),
}


def identity_layer(activation, u):
    """A network whose first layer passes its input on to the activation."""
    network = mlp((1, 1, 1), activation=activation).double()
    linear = network[1]
    with torch.no_grad():
        linear.weight.fill_(1.0)
        linear.bias.fill_(0.0)
    return saturation(network, Data(u[:, None], torch.zeros(len(u), 1, dtype=torch.float64)))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_share_is_that_of_slopes_by_finite_differences(activation):
    u = torch.linspace(-9, 9, 721, dtype=torch.float64)
    s, h = ACTIVATIONS[activation], 1e-6
    slopes = torch.tensor([abs(s(v + h) - s(v - h)) / (2 * h) for v in u.tolist()], dtype=torch.float64)
    wide = torch.linspace(-20, 20, 40001).tolist()
    steepest = max(abs(s(v + h) - s(v - h)) / (2 * h) for v in wide)
    expected = float((slopes < 0.01 * steepest).double().mean())
    (share,) = identity_layer(activation, u)
    assert 0 < share < 1
    assert share == pytest.approx(expected, abs=1e-12)


def test_of_a_rectifier_it_is_the_share_of_units_that_are_off():
    (share,) = identity_layer("relu", torch.tensor([-2.0, -1.0, 1.0, 3.0, 4.0], dtype=torch.float64))
    assert share == pytest.approx(0.4)


def test_every_hidden_layer_is_counted_and_larger_weights_saturate():
    problem = small_problem("sigmoid")
    assert saturation(problem.model, problem.train) == (0.0, 0.0)
    big = problem.copy()
    with torch.no_grad():
        for parameter in big.parameters():
            parameter.mul_(1e4)
    assert min(saturation(big, problem.train)) > 0.9
    assert saturation(nn.Sequential(nn.Linear(3, 3)), blobs()) == ()


def test_update_sizes_are_relative_to_each_layer():
    before = mlp((3, 4, 2), activation="tanh", init="xavier", generator=torch.Generator().manual_seed(0)).double()
    after = mlp((3, 4, 2), activation="tanh").double()
    after.load_state_dict(before.state_dict())
    with torch.no_grad():
        after[1].weight.mul_(1.5)  # biases are zero: the layer has grown by a half
    assert update_sizes(before, after) == pytest.approx((0.5, 0.0))
    assert update_sizes(before, before) == (0.0, 0.0)


def test_a_layer_of_zeros():
    before = mlp((3, 2), init="xavier")
    with torch.no_grad():
        before[1].weight.zero_()
    after = mlp((3, 2))
    assert update_sizes(before, after) == (math.inf,)
    assert update_sizes(before, before) == (0.0,)


def test_bad_input():
    with pytest.raises(InputError, match=r"shapes \[\(2, 4\)\] before and \[\(3, 4\)\] after"):
        update_sizes(mlp((3, 2)), mlp((3, 3)))
    with pytest.raises(InputError, match=r"saturation cannot train through .*Dropout"):
        saturation(nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 3)), blobs())
