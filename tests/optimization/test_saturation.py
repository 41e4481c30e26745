import copy
import math

import numpy as np
import pytest
import torch
from problems import blobs, digits
from torch import nn

from whydeep.core import Data
from whydeep.networks import mlp
from whydeep.optimization.saturation import ELEMENTWISE, _steepest, saturation, update_sizes


def data(*values):
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    return Data(x, x)


# s' = s (1 - s) = 1/400 of the sigmoid: s = (1 - sqrt(0.99)) / 2, u = log(s / (1 - s)) = -5.98645.
# s' = 1 - t^2 = 1/100 of tanh: u = artanh(sqrt(0.99)) = 2.99322.
@pytest.mark.parametrize(
    ("module", "edge"),
    [
        (nn.Sigmoid(), -math.log((1 + math.sqrt(0.99)) / (1 - math.sqrt(0.99)))),
        (nn.Tanh(), math.atanh(math.sqrt(0.99))),
    ],
)
def test_a_unit_is_flat_just_beyond_the_edge_and_not_just_before(module, edge):
    (found,) = saturation(nn.Sequential(module), data(edge * 1.001, -edge * 1.001, edge * 0.999, 0.0))
    assert found.share == 0.5


def test_off_units_of_relu_are_flat_and_those_of_leaky_relu_are_not():
    few = data(-1.0, 0.0, 2.0, -3.0, 1.0)
    assert saturation(nn.Sequential(nn.ReLU()), few)[0].share == 3 / 5
    assert saturation(nn.Sequential(nn.LeakyReLU(0.011)), few)[0].share == 0
    assert saturation(nn.Sequential(nn.LeakyReLU(0.009)), few)[0].share == 3 / 5


# Largest slopes by hand: u = 0 for the first three; 1 in the limit; SiLU and GELU by Brent's method on their slopes.
@pytest.mark.parametrize(
    ("module", "largest"),
    [
        (nn.Sigmoid(), 0.25),
        (nn.Tanh(), 1.0),
        (nn.Softsign(), 1.0),
        (nn.ReLU(), 1.0),
        (nn.Softplus(), 1.0),
        (nn.SiLU(), 1.0998393194),
        (nn.GELU(), 1.1289041548),
    ],
)
def test_the_largest_slope(module, largest):
    assert _steepest(module) == pytest.approx(largest, rel=1e-5)


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_shares_agree_with_difference_quotients(kind):
    u = torch.linspace(-9.05, 9.07, 1000, dtype=torch.float64)  # no point is within 1e-3 of a kink
    # The default slope of leaky ReLU, 0.01, lies on the limit.
    module, step = kind(0.02) if kind is nn.LeakyReLU else kind(), 1e-5
    slopes = ((module(u + step) - module(u - step)) / (2 * step)).numpy()
    wide = torch.linspace(-30, 30, 60001, dtype=torch.float64)
    largest = float(((module(wide + step) - module(wide - step)) / (2 * step)).abs().max())
    share = float(np.mean(np.abs(slopes) < 0.01 * largest))
    # One value of a thousand may lie on the edge.
    assert saturation(nn.Sequential(module), Data(u[:, None], u[:, None]))[0].share == pytest.approx(share, abs=0.0015)


def test_layers_come_in_the_order_of_the_network_and_batches_do_not_matter():
    network, few = (
        mlp((3, 7, 5, 3), activation="sigmoid", init="xavier", generator=torch.Generator().manual_seed(0)).double(),
        blobs(20, dtype=torch.float64),
    )
    with torch.no_grad():
        network[3].weight.mul_(1000)  # saturates the second hidden layer only
    whole, parts = saturation(network, few), saturation(network, few, batch_size=3)
    assert whole == parts
    assert [one.kind for one in whole] == ["Sigmoid", "Sigmoid"]
    assert whole[0].share == 0
    assert whole[1].share > 0.9


def test_working_in_place_or_twice_is_counted_right_and_leaves_no_trace():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.act(self.act(x.clone()) - 1)

    model = Twice()
    model.train()
    before = copy.deepcopy(model.state_dict())
    # First run: -1 and 0 of -1, 0, 1/2, 3 are off; second, of -1, -1, -1/2, 2, three: 5 of 8.
    (found,) = saturation(model, data(-1.0, 0.0, 0.5, 3.0))
    assert found.share == 5 / 8
    assert model.training
    assert not model.act._forward_pre_hooks
    assert before == model.state_dict()


def test_activations_that_are_functions_are_not_seen():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward(self, x):
            return torch.relu(self.layer(x))

    assert saturation(Functional().double(), data(1.0)) == ()


def test_update_sizes_are_relative_lengths_of_weights_without_biases():
    before = mlp((3, 4, 4, 2), activation="tanh", init="xavier", generator=torch.Generator().manual_seed(0))
    after = copy.deepcopy(before)
    with torch.no_grad():
        after[1].weight.mul_(1.25)
        after[1].bias.add_(7)
        after[3].weight[0, 0] += before[3].weight.norm()
    assert list(update_sizes(before, after).values()) == pytest.approx([0.25, 1.0, 0.0], rel=1e-6)


def test_a_layer_that_was_zero_moves_infinitely_far():
    before = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    for layer in before:
        nn.init.zeros_(layer.weight)
    after = copy.deepcopy(before)
    nn.init.ones_(after[1].weight)
    assert update_sizes(before, after) == {"0": 0.0, "1": math.inf}


def test_all_matrices_of_attention_count_as_one_layer():
    before = nn.TransformerEncoderLayer(4, 2, 6)
    after = copy.deepcopy(before)
    with torch.no_grad():
        after.self_attn.out_proj.weight.zero_()
    sizes = update_sizes(before, after)
    whole = math.hypot(*(float(p.detach().norm()) for p in before.self_attn.parameters() if p.ndim > 1))
    assert sizes["self_attn"] == pytest.approx(
        float(before.self_attn.out_proj.weight.detach().norm()) / whole, rel=1e-6
    )
    assert {name for name, size in sizes.items() if size} == {"self_attn"}


def test_two_networks_are_no_two_states_of_one():
    with pytest.raises(ValueError, match="two states of one"):
        update_sizes(mlp((3, 4, 2)), mlp((3, 5, 2)))
    with pytest.raises(ValueError, match="two states of one"):
        update_sizes(mlp((3, 4, 2)), mlp((3, 4, 4, 2)))


def test_a_convolutional_network_with_batch_norm_is_seen_in_evaluation_mode():
    few, _ = digits(8)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
    (found,) = saturation(network, few)
    with torch.no_grad():
        below = network[:2].eval()(few.x)
    assert found.share == float((below <= 0).double().mean())
    assert torch.equal(network[1].running_mean, torch.zeros(2))
