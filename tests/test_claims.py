"""What every claim must be able to do; each is found by the registry, so a new file is tested at once."""

from __future__ import annotations

import pytest
import torch

from whydeep.core import check, registry
from whydeep.core.claim import Claim, Finding
from whydeep.core.verdict import Verdict

CLAIMS = registry.claims()


def run(claim: Claim, case: object = None, *, seed: int = 0, bypass: bool = False) -> Finding:
    return check(claim, case, generator=torch.Generator().manual_seed(seed), bypass_assumptions=bypass)


@pytest.fixture(params=CLAIMS.values(), ids=CLAIMS.keys())
def claim(request: pytest.FixtureRequest) -> Claim:
    found: Claim = request.param
    return found


def test_there_are_claims() -> None:
    assert len(CLAIMS) >= 6


@pytest.mark.parametrize("seed", [0, 1])
def test_holds_on_its_good_case(claim: Claim, seed: int) -> None:
    found = run(claim, seed=seed)
    assert found.verdict is claim.expected, found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_is_violated_by_no_seed(claim: Claim, seed: int) -> None:
    # Some seeds may break an assumption on what is drawn, and some leave a statistical claim undecided; a violation
    # would be a false alarm.
    found = run(claim, seed=seed)
    assert found.verdict is not Verdict.VIOLATED, found


def test_says_inapplicable_on_the_broken_case(claim: Claim) -> None:
    found = run(claim, claim.fails_on())
    assert found.verdict is Verdict.INAPPLICABLE, found
    assert found.reason


def test_measures_the_violation_on_the_broken_case(claim: Claim) -> None:
    if not claim.falsifiable:
        pytest.skip("the claim says that its broken case need not violate the statement")
    found = run(claim, claim.fails_on(), bypass=True)
    assert found.verdict is Verdict.VIOLATED, found


def test_says_no_when_its_mechanism_is_corrupted(claim: Claim) -> None:
    found = run(claim, claim.corrupted())
    assert found.verdict is Verdict.VIOLATED, found


def test_same_seed_same_finding(claim: Claim) -> None:
    first, second = (run(claim, seed=3) for _ in range(2))
    assert first.verdict is second.verdict
    assert first.assumptions == second.assumptions
    for one, two in ((first.predicted, second.predicted), (first.measured, second.measured)):
        for name, value in vars(one).items():
            if name == "seconds":
                continue
            # The same draws and the same operations; but the order in which BLAS sums depends on how the memory it
            # was given is aligned, so the last digits of float64 may differ.
            same = pytest.approx(value, rel=1e-10, abs=1e-13) if isinstance(value, float) else value
            assert getattr(two, name) == same, name


def test_its_file_is_its_id_and_its_source_is_complete(claim: Claim) -> None:
    assert claim.predict.__module__.rsplit(".", 1)[1] == claim.id
    assert claim.predict.__module__.split(".")[1] == claim.question
    assert any(character.isdigit() for character in claim.source), "a source has a year, a number or a slide"
    assert claim.statement.endswith(".")
    assert len(claim.statement) > 20


def test_leaves_the_global_generator_alone(claim: Claim) -> None:
    before = torch.random.get_rng_state()
    run(claim)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.slow
def test_holds_at_the_convincing_size(claim: Claim) -> None:
    if claim.convincing is None:
        pytest.skip("the claim's default size is its convincing size")
    found = run(claim, claim.convincing())
    assert found.verdict is claim.expected, found
