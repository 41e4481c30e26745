r"""Certificates from the path of a Langevin training: no held-out sample is used.

With Q the law of the path given the n training samples and P that of a prior path, both conditional on the indices of
the batches (drawn without looking at the data), and for any classifier h that is a function of the path:

single run   kl(R_n(h) || R(h)) <= (ln dQ/dP(path) + ln(2 sqrt(n)/delta)) / n       with probability 1 - delta
path KL      kl(E R_n || E R)   <= (KL(Q || P) + ln(2 sqrt(n)/delta)) / n            E over the noise of training

Proof of the first: E_P e^{n kl(R_n(h) || R(h))} <= 2 sqrt(n), where h does not depend on the samples (Maurer 2004);
change the measure to Q and use Markov's inequality on e^{n kl - ln dQ/dP}. (Disintegrated bounds: Rivasplata,
Kuzborskij, Szepesvari and Shawe-Taylor 2020, recalled, not checked against the paper; derived here.) The second is the
PAC-Bayes-kl bound (Seeger 2002, Maurer 2004) over paths.

P is the data-free prior (the same update without the data's gradient), or one that followed the gradient on a part J of
the samples: then everything is conditional on J, and n counts the others, on which R_n is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.data.accept import as_data
from whydeep.generalization.risk import Classifier, mistakes

from .certificate import Certificate, guessing, shares
from .heldout import check_candidates, heldout_certificate
from .inversion import check_delta, kl_inverse
from .path_sums import LogRatio, Path
from .path_weights import check_weights
from .preconditions import check_among, check_disjoint, check_fixed, with_repeats
from .stability import StabilityBound, langevin_stability

ROUNDING = 1e-3
"""Inner products in single precision err by 2e-4 of themselves at most where `SGLD` takes them, in short pieces, and a
drift is rounded once more where it is multiplied by the step size: the divergence is taken to be larger by this
fraction."""

ASSUMPTIONS = (
    "the training samples are independent draws of the distribution that the risk is about",
    "the classifier is a function of the path alone, and the start, which weights a step moves, the step sizes, the "
    "temperature, the number of steps and the batches' indices were chosen without looking at the samples",
    "every candidate whose training error on these samples was compared is paid for",
)


@dataclass(frozen=True)
class PathCertificates:
    """The certificates of one path; the ones after `in_expectation` are None where they do not apply.

    single_run: of this very classifier, data-free prior. data_prior: the same with the prior that followed a part of
    the samples. in_expectation: of the training algorithm, over its noise, the divergence of this run standing for its
    expectation. decayed: the slide's weights exp(-lambda (T_N - T_k)/2): conditional, see its notes.
    stability: a bound on the expected gap, not on this run's.
    """

    single_run: Certificate
    in_expectation: Certificate
    data_prior: Certificate | None
    decayed: Certificate | None
    stability: StabilityBound | None

    def __iter__(self) -> Iterator[Certificate]:
        """Yield the certificates there are."""
        for one in (self.single_run, self.data_prior, self.in_expectation, self.decayed):
            if one is not None:
                yield one

    @property
    def sentences(self) -> tuple[str, ...]:
        """Each in words, with what dominates it; then the plain held-out bound where there is one, and the notes."""
        lines = [f"{one.method}: {one.sentence} Largest term: {one.dominant}." for one in self]
        if self.stability is not None:
            bound = self.stability
            vacuous = "; that says nothing" if bound.vacuous else ""
            lines.append(
                f"stability: if every step used {bound.batch_size:,} of {bound.n:,} samples and no sample's gradient "
                f"was longer than {bound.lipschitz:.3g}, the expected gap is at most {bound.value:.3g}{vacuous}."
            )
        if self.single_run.baseline is not None:
            lines.append(f"held-out samples: {self.single_run.baseline.sentence}")
        lines += [f"Note: {note}." for note in self.single_run.notes]
        return tuple(lines)


def sgld_certificate(
    optimizer: Any,
    model: Classifier,
    train: Any,
    *,
    delta: float = 0.05,
    candidates: int = 1,
    unseen: Any = None,
    heldout: Any = None,
    batch_size: int | None = None,
    lipschitz: float | None = None,
) -> PathCertificates:
    """Return what the path of a Langevin training certifies about a classifier on it.

    optimizer: an `SGLD` built with `accumulate=True`, or its `path`.
    model: a function of the path: the network at its last step or a copy of an earlier one, the mean of its weights, a
    vote of its points. What of that is on trust is in the notes.
    train: the samples of which every step used all or a batch. candidates: how many settings were tried on them; each
    is paid delta / candidates.
    unseen: those of `train` that the prior's gradients did not use, where `step(prior=...)` was given those of the
    others.
    heldout: samples for the plain certificate printed beside; they are used for nothing else.
    batch_size and lipschitz: for the stability bound; the first None means full batches, the second is taken from the
    path's `clip`, or else on trust, and without one there is no stability bound.

    Raises `InputError` on an optimizer that kept no sums, made no step or met a gradient that was not finite, on a
    network with running statistics (batch normalisation: they depend on the samples and no path of weights pays for
    them) or with weights that are not the path's (`check_weights`), when held-out samples are among the training
    samples or unseen ones are not, and as `certify` does. Cost: a pass over the samples.
    """
    check_delta(delta)
    check_candidates(candidates)
    path = _path(optimizer)
    _check_statistics(model)
    trust = check_weights(path, model)
    data = as_data(train, name="training data")
    check_fixed(model, data)
    baseline = None
    if heldout is not None:
        fresh = as_data(heldout, name="held-out data", like=data)
        check_disjoint(data, fresh)
        # Chosen without the held-out samples, so its union bound is over one.
        baseline = with_repeats(heldout_certificate(model, fresh, delta=delta), fresh)
    certificate = partial(
        _certificate, path=path, model=model, delta=delta, candidates=candidates, baseline=baseline, trust=trust
    )
    single = certificate("sgld-single-run", path.data_free.value, path.data_free, data)
    expected = certificate("sgld-path-kl", path.data_free.divergence, path.data_free, data)
    expected = replace(
        expected,
        subject="an average run of this training",
        condition=_both("this run is an average one", expected.condition),
        assumptions=(*ASSUMPTIONS, "the divergence and the error of this run stand for their expectations"),
    )
    decayed = None
    if path.data_free.decayed < path.data_free.divergence:
        decayed = certificate("sgld-decayed", path.data_free.decayed, path.data_free, data)
        decayed = replace(
            decayed,
            subject="an average run of this training",
            condition=_both("the slide's decay holds for this chain", expected.condition),
            assumptions=(*expected.assumptions, "a logarithmic Sobolev inequality along the prior's path"),
            notes=("conditional: the decay is not proven for the discrete chain used here", *expected.notes),
        )
    return PathCertificates(
        single_run=single,
        in_expectation=expected,
        data_prior=_with_data_prior(path, data, unseen, certificate),
        decayed=decayed,
        stability=_stability(path, len(data), batch_size, lipschitz),
    )


def _path(optimizer: Any) -> Path:
    try:
        path: Path = getattr(optimizer, "path", optimizer)
        steps = path.steps
    except (AttributeError, ValueError) as fault:
        raise InputError(
            f"{type(optimizer).__name__} kept no sums along its path", "train with SGLD(..., accumulate=True)"
        ) from fault
    if steps < 1:
        raise InputError("the path has no steps", "train before asking for its certificate")
    if any(math.isnan(sums.value) for sums in (path.data_free, path.prior) if sums is not None):
        raise InputError(
            "the path's sums are not numbers: a gradient was not finite in one of its steps",
            "take a smaller step size, or give the path as it was before that step",
        )
    return path


def _check_statistics(model: Classifier) -> None:
    if not isinstance(model, nn.Module):
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            raise InputError(
                f"{name or 'the network'} ({type(module).__name__}) keeps running statistics of the training samples, "
                "for which the path of the weights does not pay",
                "use a network without them (GroupNorm, LayerNorm)",
            )


def _rounding(divergence: float, last_places: float) -> float:
    """How many nats the log-ratio of the path that was made can exceed that of its sums.

    The drifts d that were made are d' = d + e, e being at most a unit in the last place of each weight, of divergence
    E = `last_places`. By Cauchy and Schwarz D' <= (sqrt(D) + sqrt(E))^2; and the fluctuation changes by a number of
    mean zero and variance 2 E, which is below five standard deviations but for 3e-7.
    """
    if divergence == 0 or last_places == 0:
        return 0.0
    return 2 * math.sqrt(divergence * last_places) + last_places + 5 * math.sqrt(2 * last_places)


def _certificate(
    method: str,
    nats: float,
    sums: LogRatio,
    data: Data,
    *,
    path: Path,
    model: Classifier,
    delta: float,
    candidates: int,
    baseline: Certificate | None,
    trust: tuple[str, ...],
) -> Certificate:
    """kl^-1(R_n, (nats + ln(2 sqrt(n) J / delta)) / n), with what each part adds."""
    n, errors = len(data), int(mistakes(model, data).sum())
    error = errors / n
    rounding = ROUNDING * sums.divergence + _rounding(sums.divergence, path.rounding)
    nats = nats + rounding
    confidence = math.log(2 * math.sqrt(n) / delta)

    def bound(cost: float) -> float:
        # kl is never negative, so a price below zero (a path likelier under the prior) is as good as zero. In this
        # order NaN stays NaN, which is refused.
        return kl_inverse(error, max(cost, 0.0) / n)

    stages = [("error measured", error), ("path's divergence", bound(nats)), ("confidence", bound(nats + confidence))]
    union: tuple[str, ...] = ()
    if candidates > 1:
        stages.append(("union over candidates", bound(nats + confidence + math.log(candidates))))
        union = (f"delta / {candidates}, for {candidates} settings tried on the same samples",)
    found = Certificate(
        bound=stages[-1][1],
        method=method,
        n=n,
        delta=delta,
        error=error,
        terms=shares(stages),
        assumptions=ASSUMPTIONS,
        errors=errors,
        trivial=guessing(data),
        candidates=candidates,
        union=union,
        details={
            "nats": nats,
            "divergence": sums.divergence,
            "fluctuation": sums.fluctuation,
            "rounding": rounding,
            "nats / n": nats / n,
        },
        notes=trust,
        baseline=baseline,
    )
    return with_repeats(found, data)


def _both(condition: str, other: str) -> str:
    return f"{condition} and {other}" if other else condition


def _with_data_prior(
    path: Path, data: Data, unseen: Any, certificate: Callable[[str, float, LogRatio, Data], Certificate]
) -> Certificate | None:
    if unseen is None:
        return None
    if path.prior is None:
        raise InputError(
            "samples that the prior did not see are given, but no prior followed the others in every step",
            "give their gradients to SGLD.step(prior=...), or leave out unseen=",
        )
    others = as_data(unseen, name="samples unseen by the prior", like=data)
    if not len(others) < len(data):
        raise InputError(
            f"{len(others)} unseen of {len(data)} training samples leave the prior none", "give only the unseen ones"
        )
    check_among(data, others)
    found = certificate("sgld-data-prior", path.prior.value, path.prior, others)
    followed = len(data) - len(others)
    return replace(
        found,
        assumptions=(*ASSUMPTIONS, f"the prior's gradients used only the other {followed} samples, chosen at random"),
    )


def _stability(path: Path, n: int, batch_size: int | None, lipschitz: float | None) -> StabilityBound | None:
    constant = lipschitz if lipschitz is not None else path.clip
    if constant is None:
        return None
    if not path.one_rate:
        raise InputError(
            "the parameter groups have different step sizes or temperatures, for which there is no stability bound",
            "give all groups the same, or no lipschitz=",
        )
    return langevin_stability(path.rates, n=n, lipschitz=constant, batch_size=batch_size or n)
