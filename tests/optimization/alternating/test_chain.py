import pytest
import torch
from problems import blobs, small_problem
from torch import nn

from whydeep.core import Data, InputError
from whydeep.networks import mlp
from whydeep.optimization.alternating.chain import Chain


def model(*modules):
    return nn.Sequential(*modules)


@pytest.mark.parametrize(
    "network",
    [
        mlp((3, 5, 4, 3), activation="sigmoid"),
        model(nn.Linear(3, 2, bias=False), nn.Tanh(), nn.Linear(2, 3)),
        model(nn.Flatten(), model(nn.Linear(3, 4), nn.Softplus()), nn.Identity(), nn.Linear(4, 3, bias=False)),
        model(nn.Linear(3, 4), nn.Linear(4, 2), nn.SiLU(), nn.Linear(2, 3)),
        model(nn.Linear(3, 3)),
    ],
)
def test_forward_pass_is_that_of_the_network(network):
    network = network.double()
    chain, data = Chain.of(network), blobs(dtype=torch.float64)
    x = chain.rows(data)
    states = chain.states(chain.weights(), x)
    torch.testing.assert_close(chain.outputs(chain.weights(), x), states[-1], rtol=0, atol=0)
    torch.testing.assert_close(states[-1], network(x).detach())
    assert len(states) == 1 + sum(isinstance(module, nn.Linear) for module in network.modules())


def test_inputs_times_weights_are_the_preactivations():
    chain = Chain.of(mlp((3, 5, 3), activation="tanh"))
    x, layer, weight = blobs(dtype=torch.float64).x, chain.layers[0], chain.weights()[0]
    torch.testing.assert_close(layer.inputs(x) @ weight.T, layer.preactivation(weight, x))


def test_weights_come_back_as_they_were_loaded():
    network = small_problem(dtype=torch.float32).model
    chain = Chain.of(network)
    weights = tuple(2 * weight for weight in chain.weights())  # powers of two: exact in single precision
    chain.load(weights)
    assert all(torch.equal(a, b) for a, b in zip(chain.weights(), weights, strict=True))
    assert next(network.parameters()).dtype is torch.float32


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


shared = nn.Linear(3, 3)
frozen = nn.Linear(3, 3).requires_grad_(False)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (model(nn.Linear(3, 4), nn.LeakyReLU(-0.1), nn.Linear(4, 3)), r"slope in \[0, 1\)"),
        (model(nn.Linear(3, 4), nn.Dropout(0.1), nn.Linear(4, 3)), r"model\[1\], a Dropout"),
        (model(model(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Linear(4, 3)), r"model\[0\]\[1\], a BatchNorm1d"),
        (model(Doubled(3, 3)), r"model\[0\], a Doubled"),
        (model(nn.Linear(3, 4), nn.Sigmoid(), nn.Tanh(), nn.Linear(4, 3)), r"model\[2\], Tanh.*one each"),
        (model(nn.Sigmoid(), nn.Linear(3, 3)), r"model\[0\], Sigmoid"),
        (model(nn.Linear(3, 3), nn.Sigmoid()), "linear output layer"),
        (model(nn.Flatten(0), nn.Linear(3, 3)), "Flatten"),
        (model(nn.Linear(3, 3), nn.Softplus(beta=2), nn.Linear(3, 3)), "default beta"),
        (model(shared, nn.Tanh(), shared), "share their weights"),
        (model(frozen, nn.Tanh(), nn.Linear(3, 3)), "frozen"),
        (model(), "linear output layer"),
        (nn.Linear(3, 3), "cannot train a Linear"),
    ],
)
def test_other_networks_are_refused_by_name(network, message):
    with pytest.raises(InputError, match=message):
        Chain.of(network)


def test_samples_that_are_no_rows_need_flatten():
    data = Data(torch.zeros(2, 1, 3))
    assert Chain.of(model(nn.Flatten(), nn.Linear(3, 3))).rows(data).shape == (2, 3)
    with pytest.raises(InputError, match=r"nn\.Flatten"):
        Chain.of(model(nn.Linear(3, 3))).rows(data)
