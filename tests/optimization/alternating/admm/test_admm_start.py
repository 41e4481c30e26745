import pytest
import torch
from problems import blobs, digits, small_problem
from threaded_group import together
from torch import nn

from whydeep.core import Data, Problem
from whydeep.networks import linear, mlp
from whydeep.optimization.alternating.admm.admm import ADMM
from whydeep.optimization.alternating.admm.start import fades, starting_weights
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.stochastic_admm.rescaled_start import rescaled, spreads


def network(depth, *, activation="sigmoid", init="default", gain=1.0, seed=0, width=60):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = (64, *[width] * depth, 10)
        return mlp(widths, activation=activation, init=init, gain=gain, generator=generator).double()


def faint(model, data):
    chain = Chain.of(model)
    return fades(chain, chain.rows(data), data.targets)


def test_small_sigmoid_starts_fade_and_others_do_not():
    data, _ = digits(300, dtype=torch.float64)
    assert faint(network(1), data)
    assert faint(network(10, init="xavier", gain=4.0), data)
    assert not faint(network(2, init="xavier", gain=4.0), data)
    assert not faint(network(10, activation="tanh"), data)  # only sigmoids have been measured
    assert not faint(network(2, width=59), data)
    assert not faint(linear(64, 10).double(), data)  # nothing is hidden


def test_a_network_whose_outputs_vary_is_left_alone_however_faint_its_layers():
    data, _ = digits(300, dtype=torch.float64)
    model = network(1)
    chain = Chain.of(model)
    weights = chain.weights()
    assert min(spreads(chain, chain.rows(data))) < 0.2
    # One-hot targets of ten classes have a total variance of .9: outputs of a quarter of that are learnt ones.
    outputs = chain.outputs(weights, chain.rows(data))
    factor = (0.25 * 0.9 / float(outputs.var(0, correction=0).sum())) ** 0.5
    for share, expected in ((0.95, True), (1.05, False)):
        chain.load((weights[0], share * factor * weights[1]))
        assert faint(model, data) is expected


@pytest.mark.parametrize(("depth", "offset"), [(2, 1.0), (10, 0.5)])
def test_the_automatic_start_has_its_spread_and_means(depth, offset):
    data, _ = digits(300, dtype=torch.float64)
    problem = Problem(network(depth), data)
    found = starting_weights(Chain.of(problem.copy()), data, "auto")
    expected = Chain.of(rescaled(problem, spread=0.5, offset=offset).model).weights()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_processes_whose_own_samples_disagree_take_the_start_of_the_first():
    # The second half of the samples does not vary at all: there the start fades, on the first half it does not.
    data, _ = digits(200, dtype=torch.float64)
    x = data.x.clone()
    x[100:] = x[100]
    data = Data(x, data.targets, classes=10)
    model = network(2, init="xavier", gain=4.0)
    halves = [data.take(torch.arange(100)), data.take(torch.arange(100, 200))]
    assert [faint(model, half) for half in halves] == [False, True]
    problem = Problem(model, data, loss="squared")
    found = together(2, lambda group: ADMM(sweeps=1, group=group).train(problem).history["loss"])
    assert torch.equal(*found)
    assert float(found[0][0]) == pytest.approx(problem.risk(), rel=1e-12)


def test_none_and_starts_that_do_not_fade_keep_the_given_weights():
    data, _ = digits(300, dtype=torch.float64)
    model = network(2, init="xavier", gain=4.0)
    assert starting_weights(Chain.of(network(10)), data, None) is None
    assert starting_weights(Chain.of(model), data, "auto") is None
    problem = Problem(model, data, loss="squared")
    automatic, given = (ADMM(sweeps=3, spread=spread).train(problem).history for spread in ("auto", None))
    assert torch.equal(automatic["loss"], given["loss"])


def test_training_by_default_leaves_the_linear_classifier_behind():
    train, _ = digits()
    problem = Problem(network(4).float(), Data(train.x.float(), train.targets, classes=10), loss="squared")
    automatic, given = (ADMM(sweeps=25, spread=spread).train(problem).history["error"] for spread in ("auto", None))
    # The least-squares linear classifier has 0.045 of the training digits wrong, and ADMM goes there from PyTorch's own
    # weights. The least error, as the last one swings.
    assert float(automatic.min()) < 0.032 < 0.038 < float(given.min())


def test_a_wave_is_fitted_sooner_from_the_automatic_start():
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = mlp((1, 60, 60, 1), activation="sigmoid").double()
    problem = Problem(model, Data(x, torch.sin(5 * x)), loss="squared")
    automatic, given = (ADMM(sweeps=10, spread=spread).train(problem).history["loss"][-1] for spread in ("auto", None))
    # From Xavier's start and PyTorch's the ratio is 40 to 1000 with layers of 100.
    assert float(automatic) < float(given) / 5


def test_a_trained_network_goes_on_from_where_it_is():
    train, _ = digits(400, dtype=torch.float64)
    problem = Problem(network(3), train, loss="squared")
    first = ADMM(sweeps=15).train(problem)
    again = ADMM(sweeps=1).train(problem.with_model(first.model))
    assert float(again.history["loss"][0]) == pytest.approx(float(first.history["loss"][-1]), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2])
def test_few_samples_and_width_one_start_automatically(n):
    data = Data(torch.eye(n, 3, dtype=torch.float64), torch.arange(n), classes=2)
    training = ADMM(sweeps=3).train(Problem(mlp((3, 60, 1, 2), activation="sigmoid").double(), data))
    assert bool(torch.isfinite(training.history["loss"]).all())


def test_a_network_without_biases_is_rescaled_only():
    x = blobs(dtype=torch.float64)
    model = nn.Sequential(nn.Linear(3, 60, bias=False), nn.Sigmoid(), nn.Linear(60, 3, bias=False)).double()
    with torch.no_grad():
        model[0].weight.mul_(1e-3)
        model[2].weight.mul_(1e-3)
    before = model[0].weight.detach().clone()
    found = starting_weights(Chain.of(Problem(model, x).copy()), x, "auto")
    ratio = found[0][:, :3] / before
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0, 0])))
    assert float(ratio[0, 0]) > 10


def test_other_activations_start_as_given():
    problem = small_problem("tanh", dtype=torch.float64)
    automatic, given = (ADMM(sweeps=3, spread=spread).train(problem).history["loss"] for spread in ("auto", None))
    assert torch.equal(automatic, given)
