from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from problems import digits
from torch import Tensor, nn

from whydeep.core import Data
from whydeep.networks import mlp
from whydeep.networks.cnn import cnn
from whydeep.representation.features import INPUT, OUTPUT, features, layers


class Transformer(nn.Module):
    """Rows of an image as tokens, one encoder layer, mean over tokens; samples first or second."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.embed = nn.Linear(8, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=batch_first, dropout=0.3)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.flatten(1, 2))
        tokens = tokens if self.batch_first else tokens.transpose(0, 1)
        tokens = self.norm(tokens + self.attention(tokens, tokens, tokens)[0])
        return self.head(tokens.mean(1 if self.batch_first else 0))


class Functional(nn.Module):
    """A block whose activation is no module, and whose output is scaled after the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 5), nn.Linear(5, 10)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.second(F.relu(self.first(x.flatten(1))))


def samples(n: int = 7) -> Data:
    return digits(dtype=torch.float64)[0].take(torch.arange(n))


def test_a_sequential_is_read_where_the_representation_changes() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 5), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Sequential(nn.Linear(5, 10))
    ).double()
    data = samples()
    places = layers(model, data)
    assert [place.name for place in places] == [INPUT, "1", "2", "4.0"]
    seen = features(model, data, places, batch_size=3)
    hidden = data.x.flatten(1) @ model[1].weight.T + model[1].bias
    # 1e-12: the same sums in double precision, in another order.
    torch.testing.assert_close(seen["1"], hidden.detach(), atol=1e-12, rtol=0)  # not what the in-place ReLU made of it
    torch.testing.assert_close(seen["2"], hidden.detach().relu(), atol=1e-12, rtol=0)
    torch.testing.assert_close(seen["4.0"], model.eval()(data.x).detach(), atol=1e-12, rtol=0)
    assert torch.equal(seen[INPUT], data.x.flatten(1))


def test_other_modules_are_read_at_their_leaves_in_order_of_execution() -> None:
    data = samples()
    model = Functional().double()
    assert [place.name for place in layers(model, data)] == [INPUT, "first", "second", OUTPUT]
    assert [place.name for place in layers(nn.Sequential(nn.Identity(), model), data)][1:3] == ["1.first", "1.second"]


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_is_one_layer_wherever_the_samples_stand(batch_first: bool) -> None:
    torch.manual_seed(0)
    model, data = Transformer(batch_first=batch_first).double(), samples()
    places = layers(model, data)
    assert [place.name for place in places] == [INPUT, "embed", "attention", "norm", "head"]
    assert [place.shape for place in places[1:]] == [(8, 16)] * 3 + [(10,)]
    seen = features(model, data, places)
    tokens = model.embed(data.x.flatten(1, 2))
    given = tokens if batch_first else tokens.transpose(0, 1)
    output = model.eval().attention(given, given, given)[0]
    expected = (output if batch_first else output.transpose(0, 1)).flatten(1)
    torch.testing.assert_close(seen["attention"], expected.detach(), atol=1e-12, rtol=0)


def test_a_layer_that_mixes_samples_is_left_out() -> None:
    class Mixing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.mean(0, keepdim=True)

    model = nn.Sequential(nn.Flatten(), Mixing(), nn.Linear(64, 2)).double()
    # What comes after is mixed as well; the samples themselves remain.
    assert [place.name for place in layers(model, samples())] == [INPUT]


def test_blocks_of_a_sample_are_put_together_again() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(16, 3), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x.reshape(-1, 16)).reshape(len(x), 12))

    model, data = Patches().double(), samples()
    places = layers(model, data)
    assert [(place.name, place.shape) for place in places[1:]] == [("embed", (4, 3)), ("head", (2,))]
    expected = model.embed(data.x.reshape(7, 4, 16)).flatten(1).detach()
    torch.testing.assert_close(features(model, data, places)["embed"], expected, atol=1e-12, rtol=0)


def test_large_maps_are_averaged_and_others_become_signed_sums() -> None:
    data = samples()
    model = cnn((1, 8, 8), 10, channels=(4,)).double()
    places = {place.name: place for place in layers(model, data, limit=20)}
    assert (places["0"].pool, places["0"].width) == (2, 16)  # 4 channels of 2 x 2 regions: 16 <= 20 < 4 * 9
    seen = features(model, data, tuple(places.values()))
    by_hand = model[0](data.x).unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5)).flatten(1).detach()
    torch.testing.assert_close(seen["0"], by_hand, atol=1e-12, rtol=0)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 400)).double()
    place = layers(wide, data, limit=100)[-1]
    got = features(wide, data, [place])["1"]
    raw = wide(data.x).detach()
    matrix = torch.zeros(400, 100, dtype=torch.float64)
    assert place.bucket is not None
    assert place.sign is not None
    matrix[torch.arange(400), place.bucket] = place.sign.double()
    torch.testing.assert_close(got, raw @ matrix, atol=1e-12, rtol=0)


def test_signed_sums_keep_inner_products_on_average() -> None:
    model, data = nn.Sequential(nn.Flatten(), nn.Linear(64, 50)).double(), samples(2)
    raw = model(data.x).detach()
    products = []
    for seed in range(100):
        place = layers(model, data, limit=10, generator=torch.Generator().manual_seed(seed))[-1]
        one, other = features(model, data, [place])[place.name]
        products.append(float(one @ other))
    values = torch.tensor(products)
    standard_error = float(values.std()) / 10
    assert abs(float(values.mean()) - float(raw[0] @ raw[1])) < 4 * standard_error
    assert standard_error < 0.1 * float(raw[0].norm() * raw[1].norm())


def test_at_most_so_many_layers_at_equal_distances() -> None:
    model = mlp((64, 5, 5, 5, 5, 10))
    data = digits()[0].take(torch.arange(1))  # one sample is enough
    assert len(layers(model, data)) == 10
    assert [place.name for place in layers(model, data, most=4)] == [INPUT, "3", "6", "9"]
    with pytest.raises(ValueError, match="at least 2 layers"):
        layers(model, data, most=1)


def test_the_model_and_the_global_generator_are_left_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Linear(5, 10))
    model[2].eval()
    data = digits()[0].take(torch.arange(20))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    features(model, data, layers(model, data))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, True, False, True, True]
    assert model[3].inplace
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
