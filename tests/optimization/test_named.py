from __future__ import annotations

import pytest

from whydeep.core import InputError
from whydeep.optimization import Backprop
from whydeep.optimization.named import by_name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sgld?beta=0", "solver sgld: beta is 0; give a number > 0, or infinity for no noise; change beta=0"),
        ("sgld?temperature=-1", "temperature is -1; give a number >= 0"),
        ("sgld?lr=-1", "lr=-1; give a finite number >= 0"),
        ("sgd?momentum=-1", "Invalid momentum"),
        ("adam?colour=3", "has no 'colour'"),
    ],
)
def test_what_the_optimizer_refuses_is_refused_before_anything_is_read(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        by_name(spec, samples=100)


def test_of_beta_and_temperature_the_last_one_counts() -> None:
    for spec, options in (
        ("sgld?temperature=0.01", {"temperature": 0.01}),
        ("sgld?temperature=0.01&beta=5", {"beta": 5}),
        ("sgld?weight_decay=0.1", {"beta": 1e4, "weight_decay": 0.1}),
    ):
        solver = by_name(spec, samples=100)
        assert isinstance(solver, Backprop)
        assert solver.options == options
