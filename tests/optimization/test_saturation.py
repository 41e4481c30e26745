import copy
import math

import numpy as np
import pytest
import torch
from problems import blobs, digits
from torch import nn

from whydeep.core import Data
from whydeep.networks import mlp
from whydeep.optimization.saturation import ELEMENTWISE, _steepest, saturation, unjudged, update_sizes


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


def made(kind):
    """One of each kind; those with a kink or a limit at the default have it elsewhere."""
    given = {nn.LeakyReLU: (0.02,), nn.Threshold: (0.5, -3.0), nn.RReLU: (0.1, 0.2)}  # 0.01, the default, is the limit
    return kind(*given.get(kind, ())).double().eval()


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
        (nn.Softplus(beta=0.1), 1.0),
        (nn.Hardtanh(20.0, 30.0), 1.0),
        (nn.Hardswish(), 1.5),
        (nn.ELU(3.0), 3.0),
        (nn.LeakyReLU(-2.0), 2.0),
    ],
)
def test_the_largest_slope(module, largest):
    assert _steepest(module) == pytest.approx(largest, rel=1e-5)


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_shares_agree_with_difference_quotients(kind):
    u = torch.linspace(-9.05, 9.07, 1000, dtype=torch.float64)  # no point is within 1e-3 of a kink
    module, step = made(kind), 1e-5
    slopes = ((module(u + step) - module(u - step)) / (2 * step)).detach().numpy()
    wide = torch.linspace(-30, 30, 60001, dtype=torch.float64)
    steep = ((module(wide + step) - module(wide - step)) / (2 * step)).detach().abs()
    largest = float(steep[steep < 3].max())  # at the jump of Threshold and Hardshrink there is no slope
    share = float(np.mean(np.abs(slopes) < 0.01 * largest))
    # One value of a thousand may lie on the edge.
    assert saturation(nn.Sequential(module), Data(u[:, None], u[:, None]))[0].share == pytest.approx(share, abs=0.0015)


def test_constants_that_put_the_slope_far_from_nought_are_seen():
    # Hardtanh between 20 and 30 is flat at all but one of these.
    assert saturation(nn.Sequential(nn.Hardtanh(20.0, 30.0)), data(-5.0, 0.0, 10.0, 25.0))[0].share == 3 / 4
    # Softplus of beta 1/10: s'(u) = 1/(1 + e^(-u/10)) is 1 % of its limit 1 at u = -10 ln 99 = -45.95.
    assert saturation(nn.Sequential(nn.Softplus(beta=0.1)), data(-45.9, -46.0))[0].share == 1 / 2
    # log sigmoid: s'(u) = 1/(1 + e^u) is 1 % at ln 99 = 4.595.
    assert saturation(nn.Sequential(nn.LogSigmoid()), data(4.59, 4.60))[0].share == 1 / 2


def test_every_channel_of_prelu_has_its_own_largest_slope():
    module = nn.PReLU(3).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.005, 0.05, 200.0]))
    x = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    # The first channel is flat below 0 (0.005 of 1), the second not, the third above 0 (1 of 200).
    assert saturation(nn.Sequential(module), Data(x, x))[0].share == 2 / 6
    pictures = x[:, :, None, None].expand(-1, -1, 2, 2).clone()
    assert saturation(nn.Sequential(module), Data(pictures, pictures))[0].share == 2 / 6
    assert saturation(nn.Sequential(nn.PReLU(init=0.005).double()), Data(x, x))[0].share == 1 / 2


def test_a_subclass_with_a_slope_of_its_own_is_searched_far_out():
    class Late(nn.Tanh):
        def forward(self, u):
            return 5 * torch.tanh((u - 300) / 3)

    # The slope is 5/3 at 300 and 1 % of that 3 artanh(sqrt(0.99)) = 8.98 from there.
    (found,) = saturation(nn.Sequential(Late()), data(0.0, 300.0, 308.9, 309.1))
    assert (found.kind, found.share) == ("Late", 2 / 4)


def test_what_cannot_be_judged_is_named():
    network = nn.Sequential(nn.Linear(2, 4), nn.GLU(), nn.ReLU(), nn.Linear(2, 2), nn.Softmax(dim=1)).double()
    x = torch.zeros(3, 2, dtype=torch.float64)
    assert {name: type(one) for name, one in unjudged(network).items()} == {"1": nn.GLU, "4": nn.Softmax}
    assert [one.name for one in saturation(network, Data(x, x))] == ["2"]


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
