"""The Gibbs distribution's certificate: the KL from its prior by integrating the training loss over temperatures.

G_t has density proportional to exp(-t F(w)) against the prior, F being the training loss and t the inverse temperature.
Its normalising constant has d ln Z / dt = -E_t F, so that, exactly,

    KL(G_beta || prior) = int_0^beta E_t F dt - beta E_beta F,

and E_t F falls with t (its derivative is -Var_t F). A ladder of temperatures 0 = t_0 < ... < t_K = beta therefore
bounds the integral from above by its left sum and from below by its right sum. Maurer, Mirzaei and Pontil 2025
(recalled, not checked against the paper; the identity is derived above).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.randomness import or_default, spawn
from whydeep.generalization.fresh_weights import fresh_weights

from .certificate import Certificate, guessing, shares
from .gaussian_posterior import Gaussian, normals
from .inversion import check_delta, kl_inverse
from .pac_bayes import CONFIDENCE, confidence_nats
from .preconditions import with_repeats

ASSUMPTIONS = (
    "the training samples are independent draws of the distribution that the risk is about",
    "the prior (its centre, its scale) and the ladder of temperatures were fixed without them",
)
WIDTH = 4.0
"""Of the prior, in units of the initial weights: initial weights alone cannot fit, and a step out of them is dear."""
CONDITION = (
    "the chains have reached the Gibbs distribution at every temperature and their averages are spread like a Gaussian"
)
CHAINS = 6
"""With Student's interval at the confidence that the union over the rungs asks for, three would make every interval
five times as wide, twelve half as wide at twice the cost."""
SHARE = 0.8
"""Of delta, for the chains' averages; the inequality's part is only under a logarithm that is divided by n."""


@dataclass(frozen=True)
class Ladder:
    """What the chains saw: inverse temperatures (K+1,) from 0, and for each the loss and error of each chain, (K+1, m).

    weights: the last state of every chain at every temperature, (K+1, m, p).
    """

    temperatures: Tensor
    losses: Tensor
    errors: Tensor
    weights: Tensor

    def nats(self, rung: int, *, doubt: float = 0.025) -> tuple[float, float]:
        """Return KL(G_t || prior) at t of that rung, from above and from below; both are at least 0.

        From above by the left sum over the ladder less t E_t F, a number of each chain by itself, of which the mean
        over chains is exceeded by the truth with probability `doubt` (Student); from below by the right sum, with the
        means alone.
        """
        widths = self.temperatures[1 : rung + 1].diff(prepend=self.temperatures[:1])[:, None]
        last = self.temperatures[rung] * self.losses[rung]
        left = (widths * self.losses[:rung]).sum(0) - last
        right = (widths * self.losses[1 : rung + 1]).sum(0) - last
        return max(0.0, _upper(left, doubt)), max(0.0, float(right.mean()))

    def error(self, rung: int, *, doubt: float = 0.025) -> float:
        """Return the mean error at that rung from above, at most 1; the truth exceeds it with probability `doubt`."""
        return min(1.0, _upper(self.errors[rung], doubt))


def _upper(values: Tensor, doubt: float) -> float:
    """Student's upper end for the mean of which these, one a chain, are independent estimates; infinite without one."""
    chains = len(values)
    half = float(stats.t.isf(doubt, chains - 1)) * float(values.std()) / math.sqrt(chains)
    upper = float(values.mean()) + half
    return math.inf if math.isnan(upper) else upper


@dataclass(frozen=True)
class _State:
    """A point of a chain in units of the prior, with its loss, its error and its gradient."""

    u: Tensor
    loss: float
    error: float
    slope: Tensor


def climb(
    prior: Gaussian,
    data: Data,
    *,
    temperatures: Tensor,
    steps: int = 50,
    chains: int = CHAINS,
    generator: torch.Generator | None = None,
) -> Ladder:
    """Run `chains` chains up the ladder, `steps` steps at every inverse temperature t, and average the second half.

    In units of the prior, w = mean + scale u, a chain proposes the Langevin step with the Gaussian part taken at the
    midpoint and accepts it by Metropolis' rule (Cotter, Roberts, Stuart and White 2013),

        v = ((2 - h) u - 2 h t grad F(u) + sqrt(8 h) z) / (2 + h),  accepted with probability exp(r(u, v) - r(v, u)),
        r(u, v) = t F(u) + <v - u, t grad F(u)> / 2 + h <u + v, t grad F(u)> / 4 + h |t grad F(u)|^2 / 4,

    so that G_t is invariant whatever h. h is adapted to an acceptance of 0.6 in the first half, and kept in the second.
    At t = 0 the prior is drawn directly. Cost: chains (K + 1) steps full gradients.
    """
    generator = or_default(generator)
    found = torch.zeros(2, len(temperatures), chains, dtype=torch.float64)
    last = torch.zeros(len(temperatures), chains, len(prior.mean), dtype=prior.mean.dtype)
    for chain in range(chains):
        state, h = _at(prior, data, normals(prior.mean, generator)), 0.3
        for rung, t in enumerate(temperatures.tolist()):
            for step in range(steps):
                if t == 0:
                    state = _at(prior, data, normals(state.u, generator))
                else:
                    other = _proposal(prior, data, state, t, h, generator)
                    gain = log_acceptance(state, other, t, h)
                    # A proposal at which the network overflows has no density; without this it would be accepted.
                    chance = 0.0 if math.isnan(gain) else math.exp(min(0.0, gain))
                    if float(torch.rand((), generator=generator)) < chance:
                        state = other
                    if step < steps // 2:
                        h = min(1.0, h * math.exp(0.3 * (chance - 0.6)))
                if step >= steps // 2:
                    found[:, rung, chain] += torch.tensor([state.loss, state.error]) / (steps - steps // 2)
            last[rung, chain] = prior.mean + prior.scale * state.u
    return Ladder(temperatures.double(), found[0], found[1], last)


def _proposal(prior: Gaussian, data: Data, state: _State, t: float, h: float, generator: torch.Generator) -> _State:
    noise = normals(state.u, generator)
    return _at(prior, data, ((2 - h) * state.u - 2 * h * t * state.slope + math.sqrt(8 * h) * noise) / (2 + h))


def log_acceptance(one: _State, two: _State, t: float, h: float) -> float:
    """Return r(one, two) - r(two, one), by which the step from one to two is accepted."""

    def r(a: _State, b: _State) -> float:
        slope = t * a.slope.double()
        along = float(((b.u - a.u).double() * slope).sum()) / 2 + h * float(((a.u + b.u).double() * slope).sum()) / 4
        return t * a.loss + along + h * float(slope.square().sum()) / 4

    return r(one, two) - r(two, one)


def _at(prior: Gaussian, data: Data, u: Tensor) -> _State:
    """Return the state at u: mean cross-entropy, error, and the gradient in units of the prior."""
    point = u.detach().requires_grad_()
    assert isinstance(data.x, Tensor)
    with torch.enable_grad():
        scores = prior.scores(prior.mean + prior.scale * point, data.x)
        loss = F.cross_entropy(scores, data.targets)
    (slope,) = torch.autograd.grad(loss, [point])
    error = float((scores.detach().argmax(1) != data.targets).double().mean())
    return _State(u, float(loss.detach()), error, slope)


def gibbs_certificate(
    model: nn.Module,
    train: Data,
    *,
    delta: float = 0.05,
    rungs: int = 16,
    steps: int = 50,
    samples: int = 2000,
    generator: torch.Generator | None = None,
) -> Certificate:
    """Return the PAC-Bayes-kl bound for networks drawn from the Gibbs distribution of their training loss.

    The prior is data-free: weights N(0, s^2) with s `WIDTH` times the root mean square of each layer's initial weights
    (biases and normalisations around their initial values). The ladder is n (k/rungs)^(3/2), k = 0 ... rungs, and the
    bound is the best of its rungs (`ladder_certificate`).
    Exact: the inequality, for whatever posterior; the direction of the sum over the ladder.
    Conditional: that the chains sample the Gibbs distribution, and that their averages are spread like a Gaussian.
    At most `samples` of the training samples are used. Terms: the error; the chains' averages; the confidence; the KL.
    Raises `InputError` when the weights cannot be drawn anew. Cost: `CHAINS` chains, steps (rungs + 1) gradients each.
    """
    check_delta(delta)
    generator = or_default(generator)
    data = train.subsample(samples, spawn(generator)).in_memory()
    n = len(data)
    fresh = fresh_weights(model, generator=spawn(generator))
    prior = Gaussian(torch.where(fresh.matrix, 0.0, fresh.start), WIDTH * fresh.unit, fresh.model)
    temperatures = n * (torch.arange(rungs + 1, dtype=torch.float64) / rungs) ** 1.5
    ladder = climb(prior, data, temperatures=temperatures, steps=steps, generator=generator)
    found = ladder_certificate(ladder, prior, data, delta=delta)
    return with_repeats(replace(found, notes=(*found.notes, *fresh.notes)), data)


def ladder_certificate(ladder: Ladder, prior: Gaussian, data: Data, *, delta: float = 0.05) -> Certificate:
    """Return the bound of the best rung of a ladder that was climbed from `prior` on all of `data`, n samples.

    kl_inverse(q, (KL + ln(xi(n) / ((1 - SHARE) delta))) / n), with q and KL from above: the 2 K averages over chains
    of K rungs, any of which may be the one used, have SHARE delta / (2 K) each. The inequality itself holds for all
    posteriors at once, so that for the choice of the rung it pays nothing.
    Raises `ValueError` on a delta outside (0, 1). Cost: arithmetic on the ladder's numbers.
    """
    check_delta(delta)
    n, rungs = len(data), len(ladder.temperatures) - 1
    doubt = SHARE * delta / (2 * rungs)
    constant = confidence_nats(n, (1 - SHARE) * delta)
    above = [ladder.nats(rung, doubt=doubt)[0] for rung in range(1, rungs + 1)]
    errors = [ladder.error(rung, doubt=doubt) for rung in range(1, rungs + 1)]
    bounds = [kl_inverse(q, (nats + constant) / n) for q, nats in zip(errors, above, strict=True)]
    best = min(range(rungs), key=lambda index: bounds[index])
    rung, q = 1 + best, errors[best]
    stages = [
        ("error measured", float(ladder.errors[rung].mean())),
        ("error of the chains' averages", q),
        (CONFIDENCE, kl_inverse(q, constant / n)),
        ("KL", bounds[best]),
    ]
    return Certificate(
        bound=stages[-1][1],
        method="gibbs",
        n=n,
        delta=delta,
        error=stages[0][1],
        terms=shares(stages),
        assumptions=ASSUMPTIONS,
        trivial=guessing(data),
        subject="networks drawn from the Gibbs distribution",
        classifier=tuple(prior.network(weights) for weights in ladder.weights[rung]),
        condition=CONDITION,
        union=(f"{SHARE:g} of delta for the {2 * rungs} averages over chains, the rest for the inequality",),
        details={
            "KL, nats": above[best],
            "KL from below, nats": ladder.nats(rung)[1],
            "inverse temperature": float(ladder.temperatures[rung]),
        },
        notes=("the chains' averages enter with the spread between chains, which does not see what none has reached",),
    )
