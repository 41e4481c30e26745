"""The summary of networks whose layers and parameters are counted by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whydeep.core import Data
from whydeep.networks import cnn, linear, mlp, summary


def data(*shape: int) -> Data:
    return Data(torch.zeros(5, *shape), torch.zeros(5).long(), classes=10)


def test_mlp() -> None:
    # 64*100 + 100 + 100*100 + 100 + 100*10 + 10 = 6500 + 10100 + 1010
    seen = summary(mlp((64, 100, 100, 10)), data(1, 8, 8))
    assert (seen.depth, seen.parameters) == (3, 17_610)
    assert seen.words == "3-layer ReLU network, 17,610 parameters"
    assert [(layer.kind, layer.output_shape, layer.parameters) for layer in seen.layers] == [
        ("Flatten", (64,), 0),
        ("Linear", (100,), 6_500),
        ("ReLU", (100,), 0),
        ("Linear", (100,), 10_100),
        ("ReLU", (100,), 0),
        ("Linear", (10,), 1_010),
    ]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (linear(64, 10), "1-layer network, 650 parameters"),
        (mlp((64, 3, 10), activation="sigmoid"), "2-layer sigmoid network, 235 parameters"),
        (mlp((64, 3, 10), activation="identity"), "2-layer network, 235 parameters"),
        # Two kinds: neither names the network.
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU(), nn.Tanh()), "1-layer network, 195 parameters"),
    ],
)
def test_words(model: nn.Module, words: str) -> None:
    assert summary(model, data(1, 8, 8)).words == words


@pytest.mark.parametrize("batch_norm", [False, True])
def test_cnn(batch_norm: bool) -> None:
    # 3x3 kernels: 9*1*4 + 4 = 40 and 9*4*5 + 5 = 185; 5 x 2 x 2 = 20 features: 210; batch norm 2*4 and 2*5.
    seen = summary(cnn((1, 8, 8), 10, channels=(4, 5), batch_norm=batch_norm), data(1, 8, 8))
    assert (seen.depth, seen.parameters) == (3, 435 + 18 * batch_norm)
    assert [layer.output_shape for layer in seen.layers if layer.matrices] == [(4, 8, 8), (5, 4, 4), (10,)]


class Attention(nn.Module):
    """Rows as tokens, one attention layer, one activation called as a function, one weight that is no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 10)  # defined first, executed last
        self.embed = nn.Linear(8, 16)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.position = nn.Parameter(torch.zeros(1, 8, 16))
        self.idle = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.embed(x.flatten(1, 2)) + self.position
        z = F.gelu(self.attend(z, z, z, need_weights=False)[0])
        scores: Tensor = self.head(z.mean(1))
        return scores


@pytest.mark.parametrize("frozen", [False, True])
def test_attention_is_seen_whole_and_in_order(frozen: bool) -> None:
    model = Attention()
    model.requires_grad_(not frozen)
    seen = summary(model, data(1, 8, 8))
    # Attention: 4 projections of 16 x 16 with biases = 1088. Outside of layers: 128 positions and the idle 12.
    assert [(layer.name, layer.parameters) for layer in seen.layers] == [
        ("embed", 144),
        ("attend", 1088),
        ("head", 170),
    ]
    assert seen.parameters == 144 + 1088 + 170 + 128 + 12
    assert seen.words == "3-layer GELU network, 1,542 parameters"
    assert "140 parameters lie outside" in seen.table().note


def test_the_fast_path_of_the_encoder_hides_nothing() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.1, batch_first=True).eval()
    model = nn.Sequential(nn.Flatten(1, 2), encoder, nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)
    kinds = [layer.kind for layer in summary(model, data(1, 8, 8)).layers if layer.matrices]
    assert kinds == ["MultiheadAttention", "Linear", "Linear", "Linear"]


def test_recurrent_layers_count_each() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.LSTM(8, 6, num_layers=2, batch_first=True)
            self.head = nn.Linear(6, 10)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.head(self.cells(x[:, 0])[0][:, -1])
            return scores

    seen = summary(Recurrent(), data(1, 8, 8))
    # Four gates: 4*6*(8 + 6 + 2) and 4*6*(6 + 6 + 2), and the head 70.
    assert (seen.depth, seen.parameters) == (3, 384 + 336 + 70)
    assert seen.layers[0].output_shape == (8, 6)
    assert seen.words.startswith("3-layer LSTM network")


def test_tied_and_repeated_layers_are_counted_once() -> None:
    layer = nn.Linear(64, 64)
    twin = nn.Linear(64, 64, bias=False)
    twin.weight = layer.weight
    seen = summary(nn.Sequential(nn.Flatten(), layer, nn.Tanh(), layer, nn.Tanh(), twin), data(1, 8, 8))
    assert seen.parameters == 64 * 64 + 64
    assert [one.parameters for one in seen.layers if one.matrices] == [64 * 64 + 64, 0, 0]
    assert seen.depth == 3


def test_weight_normalisation_hides_no_layer() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(64, 10))
    seen = summary(nn.Sequential(nn.Flatten(), layer), data(1, 8, 8))
    assert (seen.depth, seen.parameters) == (1, 640 + 10 + 10)
    assert [one.kind for one in seen.layers] == ["Flatten", "Linear"]


def test_a_matrix_of_ones_own_is_a_layer_and_a_norm_is_none() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.zeros(64, 64))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.matrix

    model = nn.Sequential(nn.Flatten(), Own(), nn.Unflatten(1, (8, 8)), nn.LayerNorm((8, 8)))
    assert summary(model, data(1, 8, 8)).depth == 1


def test_one_sample_suffices_and_the_table_adds_up() -> None:
    one = Data(torch.zeros(1, 3), torch.zeros(1).long(), classes=2)
    table = summary(mlp((3, 1, 2)), one).table()
    assert sum(int(str(row[3])) for row in table.rows) == 8
    assert table.rows[1] == ("1", "Linear", "1", 4)


def test_the_model_is_left_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[1].eval()
    model[1].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.random.get_rng_state()
    summary(model, data(1, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not model[1].weight.requires_grad
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(random, torch.random.get_rng_state())
