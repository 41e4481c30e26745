"""Problems whose networks are sequences of layers of several kinds, residual blocks among them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from whydeep.core import Data, Problem
from whydeep.networks.residual import Residual, residual_mlp


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def residual_problem(width: int = 3, depth: int = 4, samples: int = 12) -> Problem:
    generator = seeded()
    model = residual_mlp(width, depth, delta=0.5, generator=generator).double()
    x, y = (torch.randn(samples, width, generator=generator, dtype=torch.float64) for _ in range(2))
    return Problem(model, Data(x, y), loss="squared")


def convolutional_problem() -> Problem:
    generator = seeded()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.ReLU(),
            Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Tanh()), delta=0.5),
            nn.MaxPool2d(2),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(8, 3),
        ).double()
    x = torch.randn(9, 1, 4, 4, generator=generator, dtype=torch.float64)
    return Problem(model.eval(), Data(x, torch.arange(9) % 3, classes=3))


def samples(problem: Problem) -> tuple[Tensor, Tensor]:
    assert isinstance(problem.train.x, Tensor)
    return problem.train.x, problem.train.targets


def sine_problem(samples: int = 300, depth: int = 20) -> Problem:
    """The paper's toy as recalled: sin on [-pi, pi] by residual tanh layers of 5 units, delta 0.25.

    The input is copied to all units and the output is their sum; both maps are fixed.
    """
    generator = seeded(0)
    blocks = []
    for _ in range(depth):
        linear = nn.utils.skip_init(nn.Linear, 5, 5)
        nn.init.normal_(linear.weight, std=0.1, generator=generator)
        nn.init.zeros_(linear.bias)
        blocks.append(Residual(nn.Sequential(linear, nn.Tanh()), delta=0.25))
    spread, total = nn.Linear(1, 5, bias=False), nn.Linear(5, 1, bias=False)
    for fixed in (spread, total):
        nn.init.ones_(fixed.weight).requires_grad_(False)
    x = math.pi * (2 * torch.rand(samples, 1, generator=generator) - 1)
    return Problem(nn.Sequential(spread, *blocks, total), Data(x, torch.sin(x)), loss="squared")
