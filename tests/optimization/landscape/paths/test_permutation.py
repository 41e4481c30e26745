"""Permuted networks compute the same function, and a network whose units were shuffled is found again."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from problems import digits
from torch import Tensor, nn

from whydeep.core import Data, InputError
from whydeep.networks import cnn, mlp
from whydeep.optimization.landscape.paths.permutation import align
from whydeep.optimization.landscape.paths.unit_sets import Units, cut, join, resolved
from whydeep.optimization.landscape.paths.units import reordered, wiring


class Residual(nn.Module):
    """A stem, a residual block with batch norm, and a block whose shortcut is a strided convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.first, self.second = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.after = nn.BatchNorm2d(6)
        self.down, self.up = nn.Conv2d(6, 8, 3, padding=1, stride=2), nn.Conv2d(8, 8, 3, padding=1)
        self.short, self.out = nn.Conv2d(6, 8, 1, stride=2), nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.stem(x)))
        h = torch.relu(h + self.after(self.second(torch.relu(self.first(h)))))
        h = torch.relu(self.up(torch.relu(self.down(h))) + self.short(h))
        return self.out(h.flatten(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 12)
        self.encoder = nn.TransformerEncoderLayer(12, 3, 16, dropout=0.2, batch_first=True)
        self.out = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(self.embed(x.squeeze(1))).mean(1))


class Grouped(nn.Module):
    """Group norm, a depthwise and a grouped convolution, and a maximum over places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(4, 8)
        self.deep, self.grouped = nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(16, 6, 1, groups=2)
        self.out = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.grouped(nn.functional.gelu(self.deep(self.norm(self.a(x))))).amax((2, 3)))


class Vision(nn.Module):
    """A vision transformer written out by hand: patches, a class token, places, heads cut by reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(1, 16, 4, stride=4), nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 5, 16))
        self.packed, self.mixed = nn.Linear(16, 48), nn.Linear(16, 16)
        self.before, self.after = nn.LayerNorm(16), nn.LayerNorm(16)
        self.wide, self.back, self.out = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).transpose(1, 2)
        t = torch.cat([self.token.expand(len(t), -1, -1), t], 1) + self.places
        n, length, width = t.shape
        q, k, v = self.packed(self.before(t)).reshape(n, length, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) / 2).softmax(-1)
        t = t + self.mixed((weights @ v).transpose(1, 2).reshape(n, length, width))
        return self.out((t + self.back(nn.functional.gelu(self.wide(self.after(t)))))[:, 0])


class Concatenated(nn.Module):
    """PReLU with a slope a channel, instance norm, a concatenation and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.slopes, self.b = nn.Conv2d(1, 6, 3, padding=1), nn.PReLU(6), nn.Conv2d(6, 4, 3, padding=1)
        self.norm, self.c = nn.InstanceNorm2d(4, affine=True), nn.Conv2d(10, 5, 1)
        self.up, self.out = nn.ConvTranspose2d(5, 7, 2, stride=2), nn.Linear(7, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.slopes(self.a(x))
        h = torch.cat([h, torch.relu(self.norm(self.b(h)))], 1)
        return self.out(torch.tanh(self.up(nn.functional.avg_pool2d(self.c(h), 2))).mean((2, 3)))


MAKE: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: mlp((64, 12, 7, 10)),
    "batch norm": lambda: cnn((1, 8, 8), 10, channels=(4, 6), batch_norm=True),
    "residual": Residual,
    "attention": Attention,
    "grouped": Grouped,
    "vision": Vision,
    "concatenated": Concatenated,
}


def network(name: str, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MAKE[name]().double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # nothing about the statistics is symmetric by chance
                nn.init.normal_(module.weight)
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return model


@pytest.fixture(scope="module")
def data() -> Data:
    return digits(60, dtype=torch.float64)[0]


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("by", ["weights", "activations"])
def test_the_permuted_network_computes_the_same(name: str, by: str, data: Data) -> None:
    a, b = network(name, 0), network(name, 1)
    before = copy.deepcopy(b.state_dict())
    found = align(b, a, data, by=by)  # type: ignore[arg-type]
    x = data.x[torch.arange(20)]
    with torch.no_grad():
        one, other = b.eval()(x), found.model.eval()(x)
    assert float((one - other).abs().max()) <= 1e-12 * float(one.abs().max())
    assert all(torch.equal(value, before[key]) for key, value in b.state_dict().items())
    if by == "weights":
        assert found.agreement[1] > found.agreement[0]
        assert found.moved > 0


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("by", ["weights", "activations"])
def test_shuffled_units_are_found_again(name: str, by: str, data: Data) -> None:
    model = network(name, 0)
    plan = wiring(model, data.x[torch.arange(4)])
    generator = torch.Generator().manual_seed(5)
    orders = {id(units): torch.randperm(units.size, generator=generator) for units in plan.free}
    shuffled = copy.deepcopy(model)
    state = model.state_dict()
    shuffled.load_state_dict({key: reordered(value, plan.axes(key), orders) for key, value in state.items()})
    assert any(not torch.equal(value, state[key]) for key, value in shuffled.state_dict().items())
    back = align(shuffled, model, data, by=by)  # type: ignore[arg-type]
    for key, value in state.items():
        torch.testing.assert_close(back.state[key], value, rtol=0, atol=0)


def test_the_assignment_is_the_best_of_all_orders(data: Data) -> None:
    # One hidden layer: one set of units, so that the linear assignment is exact; all 5! orders are tried beside it.
    a, b = mlp((64, 5, 10)).double(), mlp((64, 5, 10)).double()
    found = align(b, a, data)
    weights = [[layer.weight.detach(), layer.bias.detach()] for net in (a, b) for layer in (net[1], net[3])]
    (w1, c1), (v1, d1), (w2, c2), (v2, d2) = weights
    best = max(
        float((w1 * w2[list(p)]).sum() + (c1 * c2[list(p)]).sum() + (v1 * v2[:, list(p)]).sum() + (d1 * d2).sum())
        for p in itertools.permutations(range(5))
    )
    assert found.agreement[1] == pytest.approx(best, rel=1e-12)


def test_a_residual_stream_has_one_order_and_a_stem_of_one_channel_none(data: Data) -> None:
    plan = wiring(network("residual", 0), data.x[torch.arange(4)])
    (stream,) = [units for units in plan.free if "stem.weight" in plan.owners(units)]
    assert {"second.weight", "after.running_var", "down.weight", "short.weight", "first.weight"} <= set(
        plan.owners(stream)
    )
    assert sorted(units.size for units in plan.free) == [6, 6, 8, 8]
    # Inputs, outputs and places keep their order: nothing free but the first axis of the stem.
    assert [any(units is stream for units in axis) for axis in plan.layout["stem.weight"]] == [
        True,
        False,
        False,
        False,
    ]
    assert all(units.fixed for units in plan.axes("out.bias"))


def test_heads_move_as_wholes(data: Data) -> None:
    plan = wiring(network("attention", 0), data.x[torch.arange(4)])
    packed = plan.layout["encoder.self_attn.in_proj_weight"][0]
    assert [units.size for units in packed] == [3, 3, 4]  # query, key, value; heads; units of a head
    assert [units.fixed for units in packed] == [True, False, False]


def test_what_is_not_known_is_refused_by_its_name(data: Data) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = nn.LSTM(8, 5, batch_first=True), nn.Linear(5, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.cell(x.squeeze(1))[0][:, -1])

    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Linear(64, 5), nn.Linear(5, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.a(x.flatten(1)).sort(1).values)

    for make in (Recurrent, Sorted):
        with pytest.raises(InputError, match="not known how it treats the order of units"):
            align(make().double(), make().double(), data)
    with pytest.raises(InputError, match=r"1.weight has shape \(5, 64\) in the first and \(4, 64\) in the second"):
        align(mlp((64, 4, 10)), mlp((64, 5, 10)), data)
    with pytest.raises(ValueError, match="give weights or activations"):
        align(mlp((64, 4, 10)), mlp((64, 4, 10)), data, by="guess")  # type: ignore[arg-type]


def test_a_concatenation_and_a_selection_keep_their_order(data: Data) -> None:
    class Picked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(64, 4), nn.Linear(64, 6), nn.Linear(7, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return self.out(torch.cat([torch.tanh(self.a(x)), torch.tanh(self.b(x))[:, :3]], 1))

    model = Picked().double()
    assert wiring(model, data.x[torch.arange(4)]).free == ()
    found = align(model, Picked().double(), data)
    assert found.moved == 0


def test_axes_of_different_cuts_meet_in_their_common_refinement() -> None:
    coarse, fine = Units(12), [Units(3), Units(4)]
    join([coarse], fine)
    assert [units.size for units in resolved([coarse])] == [3, 4]
    assert resolved([coarse])[0] is resolved(fine)[0]
    # 12 = 3 x 4 against 12 = 2 x 6 has no common refinement by whole units: all of it keeps its order.
    clash, other = [Units(3), Units(4)], [Units(2), Units(6)]
    join(clash, other)
    assert all(units.fixed for units in resolved(clash + other))
    (first, second) = cut([Units(12)], [3, 4])
    assert [units.size for units in first + second] == [3, 4]
    uneven = Units(5)
    cut([uneven, Units(3)], [3, 5])
    assert uneven.fixed
