"""A record with everything that a page must cope with, built by the classes of core."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from whydeep.core import (
    Answer,
    Assumption,
    Curve,
    Finding,
    Image,
    Line,
    Measurement,
    Observation,
    Prediction,
    Record,
    Table,
    Verdict,
    exact,
    proportion,
)
from whydeep.core.record import NotDone, Question, Section

HOSTILE = "<script>alert('x')</script>&\"'"


def section(name: str, title: str, answer: Answer, observation: Observation, **changes: str) -> Section:
    texts = {
        "lecture": "With high probability the risk is at most the empirical risk plus a term of capacity.",
        "source": "slide “How to control generalization error?”; Bartlett, Foster, Telgarsky 2017, Theorem 1.1",
        "rule": "“certified” when the upper end of the interval is below the error of the most frequent class; "
        "“not certified” otherwise",
        "caveat": "The certificate speaks of data drawn like the held-out set, and of nothing else",
    } | changes
    return Section(
        instrument=name,
        title=title,
        answer=answer,
        observation=observation,
        command=f"whydeep examine --data digits --model mlp:100,100 --seed 0 --budget quick --only {name}",
        python="train, test = wd.data.load('digits', seed=0)\n"
        "record = wd.examine(lambda: wd.networks.mlp((64, 100, 100, 10)), train, test, budget='quick')\n"
        f"print(record.answer('{name}'))",
        seconds=7.31,
        **texts,
    )


def generalization() -> Question:
    passes = np.arange(0, 31)
    error = Curve(
        "Error during training",
        "passes over the data",
        "error",
        (
            Line("training", passes, 0.9 * np.exp(-passes / 3)),
            Line("test", passes, 0.88 * np.exp(-passes / 3.2) + 0.016),
            Line("chance", [0, 30], [0.9, 0.9], role="reference"),
        ),
        alt="Training error falls from 0.9 to 0 within 15 passes; test error follows and stays at 0.017.",
    )
    labels = Curve(
        "Loss on true and on random labels",
        "passes over the data",
        "loss in nats",
        (
            Line("true labels", np.arange(1, 601), 2.3 * np.exp(-np.arange(1, 601) / 20) + 1e-3),
            Line("random labels", np.arange(1, 601), 2.3 * np.exp(-np.arange(1, 601) / 160) + 1e-2),
        ),
        alt="On true labels the loss falls below 0.01 in 100 passes, on random labels it takes 600.",
        x_log=True,
        y_log=True,
    )
    capacity = Table(
        "Capacity bounds",
        ("bound", "value", "vacuous", "factor above 1"),
        (
            ("spectral", 260.0, True, 260),
            ("Frobenius", 18300.0, True, 18300),
            ("parameter count", math.inf, True, None),
            ("held-out", 0.0359, False, 0.0359),
        ),
        note="Every constant is the paper's.",
    )
    observed = Observation(
        (
            proportion("error on new data", 6, 360),
            exact("training error", 0.0, unit="fraction"),
            exact("spectral bound", 260.3),
            Measurement("passes to fit random labels", math.inf, 600, math.inf, unit="passes", method="cap reached"),
        ),
        (error,),
        (
            finding("holds", Prediction("at most", 0.0359, trivial=0.9), proportion("error", 6, 360)),
            finding("vacuous", Prediction("at most", 260.3, trivial=1.0), exact("error", 0.0167, unit="fraction")),
        ),
    )
    ledger = Observation(observed.measurements[2:], (labels, capacity))
    answer = Answer(
        "Its error on new digits is at most 3.6 % (97.5 % sure); it measures 1.7 % (6 of 360).",
        "certified",
        "good",
        "error on new data",
    )
    bounds = Answer(
        "The capacity bounds of the lecture are vacuous here, the smallest by a factor of 260.",
        "vacuous",
        "neutral",
        "spectral bound",
    )
    return Question(
        (
            section("certificate", "A certificate from held-out data", answer, observed),
            section("capacity", "Bounds from the capacity of the network", bounds, ledger),
        ),
        inapplicable=(
            NotDone(
                "pac_bayes", "PAC-Bayes bound", "the training data of these weights are unknown; declare --heldout"
            ),
        ),
    )


def finding(verdict: str, prediction: Prediction, measurement: Measurement) -> Finding:
    return Finding(
        id="the_held_out_certificate_covers",
        question="generalization",
        statement="The risk exceeds the inverted binomial tail with probability at most delta",
        source="Langford 2005, Theorem 3.3",
        verdict=Verdict(verdict),
        predicted=prediction,
        measured=measurement,
        margin=0.0,
        assumptions={"samples are independent": Assumption.CHECKED, "same distribution": Assumption.ON_TRUST},
        reason="",
        seconds=0.02,
    )


def optimization() -> Question:
    path = np.linspace(0, 1, 41)
    barrier = Curve(
        "Loss along two paths between two solutions",
        "position on the path",
        "loss in nats",
        (
            Line(
                "straight",
                path,
                0.01 + 3.6 * path * (1 - path) * 0.9,
                low=0.005 + 2.8 * path * (1 - path),
                high=0.015 + 4.0 * path * (1 - path),
            ),
            Line("curved", path, 0.01 + 0.08 * path * (1 - path)),
        ),
        alt="On the straight line the loss rises to 0.9 in the middle, on the curved path to 0.03.",
    )
    layers = ("layer 1", "layer 2", "layer 3", "layer 4", "layer 5", "layer 6", "layer 7", "layer 8")
    gradients = Curve(
        "Gradient norm by layer",
        "",
        "gradient norm",
        (
            Line("at the start", range(8), 2e-7 * 4.0 ** np.arange(8), marks=True),
            Line("at the end", range(8), 2e-5 * 2.2 ** np.arange(8), marks=True),
            Line("mean field", range(8), 1.6e-7 * 4.1 ** np.arange(8), role="theory"),
        ),
        alt="The gradient shrinks by a factor of four a layer towards the input, as the mean field predicts.",
        y_log=True,
        x_ticks=layers,
    )
    race = Curve(
        "ADMM beside Adam",
        "seconds",
        "training loss",
        tuple(
            Line(name, np.linspace(0.1, end, 25), 2.3 * np.exp(-np.linspace(0, rate, 25)))
            for name, end, rate in (
                ("Adam, default start", 6.0, 0.1),
                ("Adam, Xavier with gain 4", 6.0, 5.0),
                ("ADMM, default start", 3.8, 4.6),
                ("ADMM, Xavier with gain 4", 3.9, 4.9),
            )
        ),
        alt="ADMM reaches a loss of 0.02 from both starts; Adam only from the second.",
        y_log=True,
    )
    many = Curve(
        "Largest eigenvalues of the Hessian",
        "index",
        "eigenvalue",
        (Line("eigenvalue", range(1, 21), 41.2 / np.arange(1, 21) ** 1.4 - 1.0, marks=True),),
        alt="The largest eigenvalue is 41; the twentieth is slightly negative.",
    )
    observed = Observation(
        (
            Measurement("largest curvature", 41.27, 39.8, 42.6, method="Lanczos, residual", evaluations=120),
            Measurement("barrier on the straight line", 0.9, 0.71, 1.1, unit="nats", method="Student, 3 values"),
            Measurement("trace of the Hessian", 312.0, 250.0, 374.0, method="Hutchinson, 64 probes"),
        ),
        (barrier, many),
        (
            finding("violated", Prediction("grows like", -2.0, 0.1), Measurement("exponent", -1.2, -1.31, -1.09)),
            finding("inconclusive", Prediction("equals", 0.25, 0.01), Measurement("factor", 0.252, 0.236, 0.268)),
        ),
    )
    beside = Observation(observed.measurements[:1], (race, gradients))
    answer = Answer(
        "The minimum is not sharp (largest curvature 41), but the straight line to a second solution costs 0.9 nats.",
        "barrier on the line",
        "caution",
        "barrier on the straight line",
    )
    second = Answer(
        "ADMM reached the same error in 0.6 of Adam's time; from the default start Adam stalls.",
        "ADMM is faster here",
        "good",
        "largest curvature",
    )
    return Question(
        (
            section("landscape", "The landscape around the solution", answer, observed),
            section("race", "ADMM beside Adam on a ten-layer sigmoid network", second, beside),
        ),
        failed=(NotDone("spectrum", "Hessian spectrum", "RuntimeError: the matrix is singular at sweep 3"),),
    )


def approximation() -> Question:
    names = ("one layer", "three layers", "as given", "linear", "ridge sum")
    depth = Curve(
        "Test error at equal parameter count",
        "architecture",
        "test error",
        (
            Line(
                "networks",
                range(5),
                [0.031, 0.026, 0.028, 0.055, 0.043],
                [0.027, 0.022, 0.024, 0.05, 0.038],
                [0.035, 0.03, 0.032, 0.06, 0.048],
                marks=True,
            ),
        ),
        alt="The three networks err between 2.6 and 3.1 %, the linear model 5.5 %, the ridge sum 4.3 %.",
        x_ticks=names,
    )
    squares = Curve(
        "Error of the squaring network",
        "number of layers m",
        "largest error",
        (
            Line("measured", range(1, 9), 4.0 ** -(np.arange(1, 9) + 1.0), marks=True),
            Line("4⁻⁽ᵐ⁺¹⁾", range(1, 9), 4.0 ** -(np.arange(1, 9) + 1.0), role="theory"),
        ),
        alt="The measured error falls by a factor of four a layer, on the predicted line.",
        y_log=True,
    )
    observed = Observation(
        (Measurement("benefit of depth", 0.003, -0.006, 0.012, unit="fraction", method="paired, 5 seeds"),),
        (depth, squares),
        (finding("inapplicable", Prediction("at least", 2.0), exact("pieces", 17)),),
    )
    answer = Answer(
        "No benefit of depth detected: one layer with as many parameters errs 0.3 points more, within the 0.9 points "
        "that 5 seeds can tell apart.",
        "depth pays: not detectably",
        "neutral",
        "benefit of depth",
    )
    return Question((section("depth", "Does depth pay here?", answer, observed),))


def representation() -> Question:
    generator = np.random.default_rng(0)
    radius = np.linspace(0, 0.3, 13)
    attack = Curve(
        "Accuracy under perturbations",
        "radius in the largest-entry norm",
        "accuracy",
        (
            Line(
                "attacked, at most",
                radius,
                np.exp(-((radius / 0.11) ** 2)),
                np.exp(-((radius / 0.1) ** 2)),
                np.exp(-((radius / 0.12) ** 2)),
                marks=True,
            ),
            Line("random noise of the same size", radius, 0.98 - 0.4 * radius**2, role="reference"),
        ),
        alt="Accuracy halves at radius 0.09 under attack, and stays above 94 % under random noise.",
    )
    probe = Curve(
        "Linear probe by layer",
        "",
        "accuracy",
        (Line("probe", range(4), [0.94, 0.955, 0.962, 0.971], marks=True),),
        alt="A linear probe reads 94 % from the pixels and 97 % from the last layer.",
        x_ticks=("pixels", "layer 1", "layer 2", "output"),
    )
    filters = Image(
        "Filters of the first layer", generator.integers(0, 255, (100, 8, 8)).astype(np.uint8), "Most are noise."
    )
    attacked = Image(
        "Smallest perturbations that change the answer",
        generator.integers(0, 255, (6, 8, 8, 3)).astype(np.uint8),
        "Six digits that are misread.",
        tuple(f"{k} read as {(k + 5) % 10}" for k in range(6)),
    )
    observed = Observation(
        (
            proportion("accuracy at radius 0.1, at most", 173, 360),
            proportion("accuracy under noise of the same size", 349, 360),
        ),
        (attack, probe, filters, attacked),
    )
    answer = Answer(
        "A perturbation of 0.1 that random noise shrugs off (97 %) halves its accuracy (48 %).",
        "fragile",
        "bad",
        "accuracy at radius 0.1, at most",
    )
    return Question((section("adversarial", "Stability under perturbations", answer, observed),))


def sample() -> Record:
    """The record."""
    return Record(
        subject={
            "network": "3-layer ReLU network, 17,610 parameters",
            "data": "digits, 1,437 + 360 images",
            "training": "Adam, 30 passes, batches of 64",
        },
        questions={
            "representation": representation(),
            "approximation": approximation(),
            "generalization": generalization(),
            "optimization": optimization(),
        },
        environment={
            "date": "2026-03-14T10:30:00+00:00",
            "packages": {"whydeep": "0.1.0", "torch": "2.13.0"},
            "platform": "Linux x86_64",
            "cpus": 2,
        },
        config={
            "command": "whydeep examine --data digits --model mlp:100,100 --solver adam --seed 0 --budget quick",
            "seed": 0,
            "only": [],
            "bounds": None,
        },
        budget={"certificate": {"samples": 2000, "passes": 30}, "landscape": {"products": 120}},
        seconds=96.4,
    )


def hostile() -> Record:
    """A record whose every text tries to break out of the page."""
    observed = Observation(
        (exact(HOSTILE, 1.0, unit=HOSTILE, method=HOSTILE),),
        (
            Curve(
                HOSTILE, HOSTILE, "$x_$" + HOSTILE, (Line(HOSTILE, [0, 1], [1, 2]), Line("b", [0, 1], [0, 1])), HOSTILE
            ),
            Table(HOSTILE, (HOSTILE, "n"), ((HOSTILE, 1), (None, math.inf)), HOSTILE),
            Image(HOSTILE, np.zeros((2, 3, 3), np.uint8), HOSTILE, (HOSTILE, "")),
        ),
        (dataclasses.replace(finding("holds", Prediction("at most", 1), exact("a", 0)), statement=HOSTILE),),
    )
    answer = Answer(HOSTILE, HOSTILE, "good", HOSTILE)
    texts = {name: HOSTILE for name in ("lecture", "source", "rule", "caveat")}
    done = dataclasses.replace(section(HOSTILE, HOSTILE, answer, observed, **texts), command=HOSTILE, python=HOSTILE)
    question = Question((done,), failed=(NotDone(HOSTILE, HOSTILE, HOSTILE),))
    return Record(
        subject={"network": HOSTILE, "data": HOSTILE},
        questions={"generalization": question},
        environment={HOSTILE: HOSTILE},
        config={"command": HOSTILE, HOSTILE: {HOSTILE: HOSTILE}},
        budget={HOSTILE: {HOSTILE: 1}},
    )
