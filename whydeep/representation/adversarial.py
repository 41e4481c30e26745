"""Adversarial stability: how small a perturbation, chosen against the network, changes its decision."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import errors
from whydeep.core.measurement import Measurement
from whydeep.core.randomness import or_default

from .features import private

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Attack:
    """What an attack found.

    radii: those tried, ascending, from 0. fooled_at: (n,) float64, for each sample the smallest of them at which it is
    misclassified: 0 without any perturbation, inf if the attack never succeeded.
    examples: (n, ...) the misclassified input found there, the sample itself if there is none.
    gradients: how many input gradients were taken, counted one a sample.
    """

    radii: tuple[float, ...]
    fooled_at: Tensor
    examples: Tensor
    gradients: int

    def right(self, radius: float) -> int:
        """Return how many samples withstood every perturbation tried up to `radius`: robust ones are at most these."""
        return int((self.fooled_at > radius).sum())


def attack(
    model: nn.Module,
    data: Data,
    radii: Sequence[float],
    *,
    bounds: Bounds | None = None,
    steps: int = 20,
    restarts: int = 1,
    halvings: int = 0,
    batch_size: int = 512,
    generator: torch.Generator | None = None,
) -> Attack:
    """Attack every sample by projected gradient ascent in the maximum norm, radius after radius.

    From x, within the box B = {z : |z - x|_inf <= radius, low <= z <= high}, each step is

        z <- project onto B of  z + 2.5 radius/steps * sign(grad_z [f_j(z) - f_y(z)]),

    f the outputs, y the right class, j another one: the first start is x itself with j the best of all others at each
    step; start k >= 2 is uniform in B with j the k-th best other class at x, round and round. So steps=1, restarts=1
    is the fast gradient sign method. A sample leaves as soon as an iterate is misclassified, and what a radius fools
    counts as fooled at all larger ones, which contain it. More restarts or radii never find less than fewer do.
    halvings: afterwards, so many times, `halving_radius` is sharpened: the radius half-way between the two tried ones
    that enclose it, or an end of its interval, is tried on the samples that fell there.

    bounds: (low, high) of raw inputs, those of `data` by default; what the network does to its inputs (normalisation)
    must be part of it. Rounding of x +- radius may exceed the radius by one unit in the last place of z.
    The model is copied: evaluation mode, frozen weights.
    Source: Madry et al. 2018 (projected gradient), Goodfellow et al. 2015 (sign), Carlini and Wagner 2017 (the margin
    as the objective: unlike the log-loss it does not saturate).
    Cost: at most steps + 1 forward and steps backward passes a sample, radius and restart.

    Raises `InputError` without bounds or with samples outside them, `ValueError` for a negative radius, steps or
    restarts below 1, or data of fewer than two classes.

    >>> model = nn.Linear(1, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.zeros(2)})
    >>> data = Data(torch.tensor([[0.3]]), torch.tensor([0]), classes=2, bounds=(-1, 1))
    >>> attack(model, data, [0.2, 0.4]).fooled_at
    tensor([0.4000], dtype=torch.float64)
    """
    if steps < 1 or restarts < 1 or halvings < 0 or any(not radius >= 0 for radius in radii):
        raise ValueError(
            f"steps={steps}, restarts={restarts}, halvings={halvings}, radii={tuple(radii)}; "
            "give at least one step and restart, and no negative radius"
        )
    if data.classes is None or data.classes < 2:
        raise ValueError(f"{data.name} has {data.classes or 'no'} classes; an attack needs at least two")
    bounds = checked_bounds(data, bounds)
    data = data.in_memory()
    x, y = data.x[torch.arange(len(data))], data.targets
    generator = or_default(generator)
    fooled_at = torch.full((len(data),), math.inf, dtype=torch.float64)
    fooled_at[errors(model, data).cpu()] = 0.0
    examples, gradients = x.clone(), 0
    tried = [0.0]
    with private(model, generator) as copied:

        def strike(radius: float, targets: Tensor) -> None:
            nonlocal gradients
            for chosen in torch.split(targets.nonzero().squeeze(1), batch_size):
                found, fooled, count = _climb(copied, x[chosen], y[chosen], radius, bounds, steps, restarts, generator)
                examples[chosen[fooled]] = found[fooled]
                fooled_at[chosen[fooled.cpu()]] = radius
                gradients += count

        for radius in sorted({float(radius) for radius in radii} - {0.0}):
            strike(radius, fooled_at.isinf())
            tried.append(radius)
        for _ in range(halvings):
            bracket = _widest(tried, fooled_at)
            if bracket is None:
                break
            middle = sum(bracket) / 2
            strike(middle, fooled_at == bracket[1])
            tried = sorted([*tried, middle])
    return Attack(tuple(tried), fooled_at, examples, gradients)


def checked_bounds(data: Data, bounds: Bounds | None = None) -> Bounds:
    """Return the bounds to attack in; raises `InputError` when unknown, or when a sample lies outside them."""
    bounds = data.bounds if bounds is None else bounds
    if bounds is None:
        raise InputError("the bounds of the inputs are unknown", "pass --bounds LOW HIGH")
    low, high = bounds
    x = data.x[torch.arange(len(data))]
    least, most = float(x.min()), float(x.max())
    # A reader's division by 255 and a normalisation undone may miss the bounds by rounding.
    slack = 1e-6 * (high - low) if math.isfinite(high - low) else 0.0
    if not low < high or least < low - slack or most > high + slack:
        raise InputError(
            f"the inputs of {data.name} run from {least:g} to {most:g}, outside the bounds {low:g} to {high:g}",
            "pass the true --bounds LOW HIGH",
        )
    return bounds


def _climb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    radius: float,
    bounds: Bounds,
    steps: int,
    restarts: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, int]:
    """Return for one batch the misclassified inputs found, which samples have one, and the gradients taken."""
    low, high = (x - radius).clamp(*bounds), (x + radius).clamp(*bounds)
    found, fooled, gradients = x.clone(), torch.zeros_like(y, dtype=torch.bool), 0
    with torch.no_grad():
        others = model(x).scatter(1, y[:, None], -math.inf).argsort(1, descending=True)[:, :-1]
    for restart in range(restarts):
        active = (~fooled).nonzero().squeeze(1)
        z = x[active]
        if restart:
            # Drawn where the generator lives, so that every device sees the same numbers.
            draw = torch.rand(z.shape, generator=generator, dtype=z.dtype).to(z.device)
            z = low[active] + draw * (high[active] - low[active])
        for step in range(steps + 1):
            if len(active) == 0:
                break
            z = z.detach().requires_grad_()
            with torch.enable_grad():
                output = model(z)
                wrong = output.detach().argmax(1) != y[active]
                found[active[wrong]] = z.detach()[wrong]
                fooled[active[wrong]] = True
                if step == steps:
                    break
                keep = ~wrong
                target = others[active[keep], restart % others.shape[1]] if restart else None
                uphill = _gradient(output[keep], y[active[keep]], target, z)[keep]
            gradients += len(z)
            active = active[keep]
            z = z.detach()[keep] + 2.5 * radius / steps * uphill.sign()
            z = torch.minimum(torch.maximum(z, low[active]), high[active])
    return found, fooled, gradients


def _gradient(output: Tensor, y: Tensor, target: Tensor | None, z: Tensor) -> Tensor:
    """Return the gradient of f_target - f_y, of max over others - f_y without a target; 0 where there is none."""
    right = output.gather(1, y[:, None])
    if target is None:
        other = output.scatter(1, y[:, None], -math.inf).amax(1, keepdim=True)
    else:
        other = output.gather(1, target[:, None])
    total = (other - right).sum()
    if not total.requires_grad:  # a network that cuts the gradient: the attack cannot move and will say so
        return torch.zeros_like(z)
    (gradient,) = torch.autograd.grad(total, z, allow_unused=True, materialize_grads=True)
    return gradient.nan_to_num(0.0)


def random_signs(
    model: nn.Module,
    data: Data,
    radius: float,
    *,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Return how many samples are still right at x + radius s, s independent signs +-1, clamped to the bounds.

    The control of `attack`: a perturbation of the same size that was not chosen. One draw a sample, so that the
    samples are independent trials.
    """
    bounds = checked_bounds(data, bounds)
    x = data.x[torch.arange(len(data))]
    signs = 2.0 * torch.randint(2, x.shape, generator=or_default(generator)).to(x) - 1.0
    noisy = Data((x + radius * signs).clamp(*bounds), data.targets, data.name, data.classes)
    return len(data) - int(errors(model, noisy).sum())


def halving_bracket(radii: tuple[float, ...], fooled_at: Tensor) -> tuple[float, float] | None:
    """Return the neighbouring radii between which the accuracy falls to half that at 0 or below; None if never."""
    right = [int((fooled_at > radius).sum()) for radius in radii]
    for (lower, _), (upper, after) in itertools.pairwise(zip(radii, right, strict=True)):
        if 2 * after <= right[0]:
            return lower, upper
    return None


def halving_radius(found: Attack, *, confidence: float = 0.95, unit: str = "input units") -> Measurement:
    """Return the radius at which the accuracy under `found` has halved: the median radius that fools a sample.

    The value is interpolated linearly between the two radii tried around it; inf when the attack never got so far.
    The interval holds the median over the distribution that the samples come from: of m samples right at first, in
    order of the radius that fools them, the l-th and the (m + 1 - l)-th enclose it, l the smallest with
    P(Binomial(m, 1/2) <= l) >= (1 - confidence)/2. A sample's own radius lies between two that were tried: the outer
    ones are taken. It is the halving of this attack; of the best attack it is at most that.

    Raises `ValueError` when no sample is right at radius 0.
    """
    order = found.fooled_at[found.fooled_at > 0].sort().values
    m = len(order)
    if m == 0:
        raise ValueError("no sample is classified right, so there is no accuracy to halve; attack a trained network")
    rank = _rank(m, confidence)
    low = 0.0 if rank == 0 else _bracket(found.radii, float(order[rank - 1]))[0]
    high = math.inf if rank == 0 else float(order[m - rank])
    bracket = halving_bracket(found.radii, found.fooled_at)
    value = math.inf
    if bracket is not None:
        before, after = (found.right(radius) for radius in bracket)
        value = bracket[0] + (before - m / 2) / (before - after) * (bracket[1] - bracket[0])
    method = f"order statistics of {m} samples"
    return Measurement("halving radius", value, low, high, confidence, unit, method, evaluations=found.gradients)


def _rank(m: int, confidence: float) -> int:
    """Return l such that the l-th and the (m + 1 - l)-th of m samples enclose the median; 0 if they are too few."""
    return int(stats.binom.ppf((1 - confidence) / 2, m, 0.5))


def _bracket(radii: Sequence[float], fooled_at: float) -> tuple[float, float]:
    """Return between which two radii tried a sample was fooled."""
    return max(radius for radius in radii if radius < fooled_at), fooled_at


def _widest(radii: Sequence[float], fooled_at: Tensor) -> tuple[float, float] | None:
    """Return the widest of the brackets that `halving_radius` reads off: of the median and of its interval's ends."""
    order = fooled_at[fooled_at > 0].sort().values
    if len(order) == 0:
        return None
    rank = max(1, _rank(len(order), 0.95))
    read = {float(order[k]) for k in (rank - 1, (len(order) - 1) // 2, len(order) - rank)} - {math.inf}
    return max((_bracket(radii, each) for each in read), key=lambda pair: pair[1] - pair[0], default=None)
