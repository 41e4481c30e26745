import pytest
import torch

from whydeep.core import InputError
from whydeep.data import load
from whydeep.data.synthetic.spec import SETS


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("make", SETS.values(), ids=SETS)
def test_every_set_has_n_samples_by_its_generator_alone(make):
    state = torch.random.get_rng_state()
    first, again, other = (
        make(50, generator=generator()),
        make(50, generator=generator()),
        make(50, generator=generator(1)),
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(first) == 50
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.x, other.x)
    assert torch.equal(make(50).x, first.x)  # without a generator: seed 0
    if first.bounds is not None:
        assert first.bounds[0] <= float(first.x.min()) <= float(first.x.max()) <= first.bounds[1]


@pytest.mark.parametrize("make", SETS.values(), ids=SETS)
def test_every_set_refuses_one_sample(make):
    with pytest.raises(ValueError, match="n=1; give at least 2"):
        make(1)


def test_options_reach_the_function():
    train, test = load("synthetic:gaussian_mixture?n=100&d=3&classes=4&separation=5&test_fraction=0.3")
    assert (len(train), len(test)) == (70, 30)
    assert train.input_shape == (3,)
    assert train.classes == 4
    assert "separation 5" in train.name
    assert "columns" in load("synthetic:compositional?n=20&permuted=yes&leaves=distinct")[0].name


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("synthetic:moons", "give one of compositional, gaussian_mixture, ridge_sum, spirals, teacher_student"),
        ("synthetic:compositional?leaves=oak", "give one of shared, distinct"),
        ("synthetic:compositional?permuted=maybe", "yes or no"),
        ("synthetic:gaussian_mixture?d=2&classes=4", "d >= 3"),
        ("synthetic:spirals?n=many", "a whole number"),
        ("synthetic:spirals?noise=-1", ">= 0"),
        ("synthetic:teacher_student?classes=1", "at least 2 classes"),
    ],
)
def test_faults_are_one_sentence(spec, said):
    with pytest.raises(InputError, match=said):
        load(spec)
