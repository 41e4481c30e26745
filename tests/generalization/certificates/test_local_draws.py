from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whydeep.generalization.certificates.gaussian_posterior import Gaussian, around
from whydeep.generalization.certificates.local_draws import local_draws

DRAWS = 3000
"""Of every law compared: standard errors are 1.8 % for means and 2.6 % for variances, of scale and variance."""


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(model: nn.Module, seed: int = 0) -> Gaussian:
    """Random means and scales around any network, in double precision."""
    prior = around(model.double(), 0.3)
    size = len(prior.mean)
    mean = torch.randn(size, generator=random(seed), dtype=torch.float64)
    return replace(prior, mean=mean, scale=0.2 + torch.rand(size, generator=random(seed + 1), dtype=torch.float64))


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=random(5), dtype=torch.float64)


SHAPES = {
    "linear": (lambda: nn.Linear(4, 3), (4,)),
    "linear without bias": (lambda: nn.Linear(4, 3, bias=False), (4,)),
    "linear on a sequence": (lambda: nn.Linear(4, 3), (3, 4)),
    "convolution": (lambda: nn.Conv2d(2, 3, 2, stride=2, padding=1), (2, 3, 3)),
    "convolution in groups": (lambda: nn.Conv1d(4, 2, 3, groups=2, padding_mode="circular", padding=1), (4, 5)),
}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_every_sample_has_the_law_of_one_draw_of_the_weights(name: str) -> None:
    build, shape = SHAPES[name]
    posterior = gaussian(build())
    x = inputs(2, *shape)
    draws = local_draws(posterior, x)
    assert draws.local == ("",)
    # The layer is linear in its weights, so the covariance over all places is J diag(scale^2) J^T.
    jacobian = torch.autograd.functional.jacobian(lambda w: posterior.scores(w, x[:1]).reshape(-1), posterior.mean)
    exact = jacobian * posterior.scale.square() @ jacobian.T
    mean, scale = posterior.scores(posterior.mean, x[:1]).reshape(-1), exact.diagonal().sqrt()
    stream = random()
    many = torch.stack([draws.scores(posterior.mean, posterior.scale, x, stream)[0].reshape(-1) for _ in range(DRAWS)])
    # 5 standard errors for some dozens of entries; that of a covariance is at most sqrt(2 / DRAWS) of the scales.
    assert bool((((many.mean(0) - mean) / scale).abs() <= 5 / math.sqrt(DRAWS)).all())
    found = torch.cov(many.T)
    assert bool((((found - exact) / torch.outer(scale, scale)).abs() <= 5 * math.sqrt(2 / DRAWS)).all())


def test_samples_are_uncorrelated_and_weight_draws_are_not() -> None:
    posterior = gaussian(nn.Sequential(nn.Conv1d(2, 2, 2), nn.Flatten()))
    x = inputs(1, 2, 3).expand(2, 2, 3)
    draws = local_draws(posterior, x)
    stream = random()
    pairs = torch.stack([draws.scores(posterior.mean, posterior.scale, x, stream)[:, 0] for _ in range(4000)])
    assert abs(float(torch.corrcoef(pairs.T)[0, 1])) <= 5 / math.sqrt(4000)
    whole = replace(draws, local=(), model=posterior.model)
    together = whole.scores(posterior.mean, posterior.scale, x, stream)[:, 0]
    assert torch.allclose(together[0], together[1])


def test_gradients_have_the_mean_of_weight_draws_and_fluctuate_less() -> None:
    convolution = [nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Tanh(), nn.Flatten()]
    model = nn.Sequential(*convolution, nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
    posterior = gaussian(model)
    posterior = replace(posterior, scale=0.3 * posterior.scale)
    x, y = inputs(64, 6), torch.arange(64) % 3
    draws = local_draws(posterior, x)
    assert draws.local == ("1", "4", "6")
    whole = replace(draws, local=(), model=posterior.model)

    def gradients(kind: object, stream: torch.Generator) -> Tensor:
        mean, scale = posterior.mean.clone().requires_grad_(), posterior.scale.clone().requires_grad_()
        loss = F.cross_entropy(kind.scores(mean, scale, x, stream), y)  # type: ignore[attr-defined]
        return torch.cat(torch.autograd.grad(loss, [mean, scale]))

    stream = random(3)
    here = torch.stack([gradients(draws, stream) for _ in range(500)])
    there = torch.stack([gradients(whole, stream) for _ in range(500)])
    error = ((here.var(0) + there.var(0)) / 500).sqrt()
    # Two times 79 entries; the probability that one of them exceeds 4.5 errors is 1e-3.
    assert bool(((here.mean(0) - there.mean(0)).abs() <= 4.5 * error).all())
    assert float(here.var(0).sum()) < 0.3 * float(there.var(0).sum())


class Twice(nn.Module):
    """Uses one layer twice, one on a flattened sequence, one by its weights, and one as it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.rows, self.last = nn.Linear(4, 4), nn.Linear(2, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(x))
        return self.last(self.rows(x.reshape(-1, 2)).reshape(-1, 4))


class Keyword(nn.Module):
    """Calls a layer by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(input=x))


class Reads(nn.Module):
    """Reads the weights of a layer that it calls, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) @ self.first.weight


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.two(self.one(x)))


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    return model


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].register_forward_hook(lambda _module, _given, output: 2 * output)
    return model


def attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(2, 1, 3, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (2, 2)), layer, nn.Flatten(), nn.Linear(4, 2))


def normalised() -> nn.Module:
    first = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    return nn.Sequential(first, nn.BatchNorm1d(4), nn.Linear(4, 2))


OTHERWISE = {
    "attention": (attention, ("1.linear1", "1.linear2", "3")),
    "frozen": (frozen, ("1",)),
    "hooked": (hooked, ("1",)),
    "keyword": (Keyword, ("last",)),
    "normalised": (normalised, ("2",)),
    "reads": (Reads, ()),
    "tied": (Tied, ("last",)),
    "twice": (Twice, ("last",)),
}


@pytest.mark.parametrize("name", sorted(OTHERWISE))
def test_layers_of_another_law_draw_weights(name: str) -> None:
    build, local = OTHERWISE[name]
    model = build()
    posterior = around(model, 0.1)
    x = inputs(3, 4).float()
    draws = local_draws(posterior, x)
    assert draws.local == local
    still = draws.scores(posterior.mean, torch.zeros_like(posterior.scale), x, random())
    assert torch.allclose(still, posterior.scores(posterior.mean, x), rtol=1e-4, atol=1e-5)
    moving = draws.scores(posterior.mean, posterior.scale, x, random())
    assert torch.isfinite(moving).all()
    assert not torch.allclose(moving, still)


def test_a_sample_of_zeros_has_a_derivative() -> None:
    posterior = gaussian(nn.Linear(2, 2, bias=False))
    scale = posterior.scale.clone().requires_grad_()
    x = torch.zeros(2, 2, dtype=torch.float64)
    output = local_draws(posterior, x).scores(posterior.mean, scale, x, random())
    (slope,) = torch.autograd.grad(output.sum(), [scale])
    assert not bool(slope.any())


def test_the_chance_of_an_error_is_that_of_drawn_outputs_for_two_classes() -> None:
    posterior = gaussian(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)))
    x, y = inputs(3, 4), torch.tensor([0, 1, 0])
    draws = local_draws(posterior, x)
    assert draws.last == "2"
    stream = random()
    here = torch.stack([draws.errors(posterior.mean, posterior.scale, x, y, stream) for _ in range(2000)])
    there = torch.stack([posterior.scores(posterior.draw(stream), x).argmax(1) != y for _ in range(2000)]).double()
    error = ((here.var(0) + there.var(0)) / 2000).sqrt()
    assert bool(((here.mean(0) - there.mean(0)).abs() <= 4.5 * error).all())
    assert float(here.var(0).sum()) < 0.9 * float(there.var(0).sum())


def test_the_chance_of_an_error_is_bounded_for_more_classes_and_has_a_derivative() -> None:
    # Outputs N(b_k, t_k^2) alone: for three classes the chance that class 0 is not the largest, by many draws.
    model = nn.Linear(1, 3)
    posterior = around(model.double(), 0.5)
    mean = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.2, -0.4], dtype=torch.float64, requires_grad=True)
    x, y = torch.zeros(2, 1, dtype=torch.float64), torch.tensor([0, 2])
    draws = local_draws(posterior, x)
    found = draws.errors(mean, posterior.scale, x, y, random())
    lead = torch.tensor([[-0.8, -1.4], [1.4, 0.6]], dtype=torch.float64) / math.sqrt(0.5)  # scores apart / sqrt(2 0.25)
    assert torch.allclose(found.detach(), torch.special.ndtr(lead).sum(1))
    drawn = mean.detach()[3:] + 0.5 * torch.randn(20_000, 3, generator=random(), dtype=torch.float64)
    chances = torch.stack([(drawn.argmax(1) != k).double().mean() for k in (0, 2)])
    # At most the bound, by 4 standard errors of 0.0035; and no less than its largest part.
    assert bool((chances <= found.detach() + 4 * 0.0035).all())
    assert bool((chances >= torch.special.ndtr(lead).max(1).values - 4 * 0.0035).all())
    (slope,) = torch.autograd.grad(found[0], [mean])
    assert float(slope[3]) < 0 < float(slope[4])


def test_without_a_linear_layer_at_the_end_there_is_no_such_chance() -> None:
    posterior = around(nn.Sequential(nn.Linear(4, 2), nn.LogSoftmax(1)), 0.1)
    x = inputs(2, 4).float()
    draws = local_draws(posterior, x)
    assert draws.last is None
    with pytest.raises(ValueError, match="use its scores"):
        draws.errors(posterior.mean, posterior.scale, x, torch.tensor([0, 1]), random())
