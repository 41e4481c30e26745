"""How well does it generalize: a certificate on its error on new samples, from held-out ones."""

from __future__ import annotations

import math

import torch

from whydeep.core.exhibit import Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact
from whydeep.core.numbers import percent
from whydeep.generalization.certificates.certificate import Certificate
from whydeep.generalization.certificates.heldout import BOUNDS, heldout_certificate
from whydeep.generalization.certificates.preconditions import FEW, overlap, repeats
from whydeep.generalization.risk import decompose

DELTA = 0.05
CERTIFIED = "certified error"
ON_TRUST = "error bound, independence on trust"
COPIES = "held-out samples that repeat others or training samples"


def applies(subject: Subject) -> str | None:
    """Return why there is nothing to certify, or None."""
    problem = subject.problem
    if problem.train.classes is None:
        return "the data are for regression; a certificate counts misclassified samples"
    if problem.test is None or problem.test.y is None:
        return "there are no held-out samples with labels; give a test set or --heldout"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Certify the risk on the test data, and take apart training error and gap."""
    problem = subject.problem
    assert problem.test is not None
    parts = decompose(problem.model, problem.train, test=problem.test)
    certificate = heldout_certificate(problem.model, problem.test, delta=DELTA)
    # Draws from few values repeat each other, and the bound holds for them; copies look the same, and it does not.
    copies = overlap(problem.train, problem.test) + repeats(problem.test)
    trusted = subject.independence == "on trust" or copies > FEW * certificate.n
    bound = Measurement(
        ON_TRUST if trusted else CERTIFIED,
        certificate.bound,
        0.0,
        certificate.bound,
        confidence=1 - DELTA,
        unit="fraction",
        method=f"binomial tail inversion, {certificate.errors} of {certificate.n}",
    )
    measurements = (
        bound,
        parts.test_error,
        parts.training_error,
        parts.gap,
        exact("mistakes on held-out samples", round(certificate.error * certificate.n), unit="samples"),
        exact("held-out samples", certificate.n, unit="samples"),
        exact(COPIES, min(copies, certificate.n), unit="samples", method="number by number"),
        exact("error of guessing", certificate.trivial, unit="fraction", method="the commonest class"),
    )
    return Observation(measurements, (_by_samples(certificate), _comparison(certificate, subject)))


def _by_samples(certificate: Certificate) -> Curve:
    """What more or fewer held-out samples with the same error rate would certify."""
    exponents = range(-6, 7)
    sizes = sorted({max(1, round(certificate.n * 2.0 ** (e / 2))) for e in exponents})
    counts = [math.ceil(certificate.error * size) for size in sizes]
    bounds = {
        name: [100 * BOUNDS[name](count, size, DELTA) for count, size in zip(counts, sizes, strict=True)]
        for name in ("binomial", "hoeffding")
    }
    rate = 100 * certificate.error
    return Curve(
        title="What a held-out set of another size would certify at the same error rate",
        x_label="held-out samples (log scale)",
        y_label="error (%)",
        lines=(
            Line("binomial", sizes, bounds["binomial"], role="theory"),
            Line("Hoeffding", sizes, bounds["hoeffding"], role="reference"),
            Line("measured rate", sizes, [rate] * len(sizes), role="reference"),
            Line("this set", [certificate.n], [100 * certificate.bound], marks=True),
        ),
        alt=(
            f"The binomial bound falls from {bounds['binomial'][0]:.2g} % at {sizes[0]} samples to "
            f"{bounds['binomial'][-1]:.2g} % at {sizes[-1]}, towards the measured rate {rate:.2g} %; "
            "Hoeffding's bound lies above it."
        ),
        x_log=True,
    )


def _comparison(certificate: Certificate, subject: Subject) -> Table:
    m = certificate.n
    k = round(certificate.error * m)
    rows = tuple((name, percent(BOUNDS[name](k, m, DELTA), up=True)) for name in BOUNDS)
    return Table(
        title=f"The same {k} mistakes of {m} under three inequalities ({percent(1 - DELTA)} sure)",
        columns=("method", "error at most"),
        rows=rows,
        note=f"Independence of the held-out samples: {subject.independence}.",
    )


def answer(seen: Observation) -> Answer:
    """Say the certificate, with what it measures."""
    trusted = any(m.name == ON_TRUST for m in seen.measurements)
    name = ON_TRUST if trusted else CERTIFIED
    bound, guess = seen[name], seen["error of guessing"].value
    mistakes, samples = round(seen["mistakes on held-out samples"].value), round(seen["held-out samples"].value)
    copies = round(seen[COPIES].value)
    if copies > FEW * samples:
        condition = f"If {copies:,} test samples that repeat others, or training samples, are draws of their own, its"
    else:
        condition = "If the test data were not used in training, its" if trusted else "Its"
    guessing = "; guessing promises as much" if bound.value >= guess else ""
    sentence = (
        f"{condition} error on new samples is at most {percent(bound.value, up=True)} ({percent(bound.confidence)} "
        f"sure); it measures {percent(mistakes / samples)} ({mistakes} of {samples:,}){guessing}."
    )
    if bound.value >= guess:
        return Answer(sentence, "vacuous", "bad", name)
    if trusted:
        return Answer(sentence, "on trust", "caution", name)
    return Answer(sentence, "certified", "good", name)


instrument = Instrument(
    name="heldout_certificate",
    question="generalization",
    title="A certificate from held-out samples",
    lecture="The error on new data is the training error plus the generalization gap; a bound on it should hold with "
    "high probability.",
    source='Slides "Generalization Error" and "Traditional Learning Theory"; Clopper and Pearson 1934; Langford 2005',
    rule="vacuous: the bound is no better than guessing the commonest class; on trust: nobody declared that the "
    "test data were kept out of training, or more than a hundredth of them repeat others or training samples; else "
    "certified.",
    caveat="It speaks of new samples from the same source as the held-out ones, and of a network that was not "
    "chosen by looking at them.",
    rank=1,
    budgets={"quick": {}, "full": {}},
    applies=applies,
    run=run,
    answer=answer,
)
