import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from whydeep.core import Data, Problem
from whydeep.estimators import MLPClassifier, MLPRegressor
from whydeep.optimization import ADMM, Backprop, StochasticADMM, automatic


@parametrize_with_checks([MLPClassifier(), MLPRegressor()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        MLPClassifier(solver="adam", activation="relu", init="he"),
        MLPClassifier(solver="admm", activation="tanh"),
        MLPClassifier((), loss="hinge", activation="tanh"),
        MLPRegressor(solver="adam"),
        MLPRegressor(solver="admm", activation="tanh"),
    ]
)
def test_scikit_learns_checks_with_other_solvers(estimator, check):
    check(estimator)


@pytest.fixture
def moons():
    return make_moons(200, noise=0.1, random_state=0)


def test_labels_of_any_type_come_back(moons):
    x, y = moons
    names = np.array(["waning", "waxing"])[y]
    model = MLPClassifier((10,), random_state=0).fit(x, names)
    assert list(model.classes_) == ["waning", "waxing"]
    assert (model.predict(x) == names).mean() > 0.95
    # For two classes the decision function is the log odds of the second.
    odds = model.predict_proba(x)
    np.testing.assert_allclose(model.decision_function(x), np.log(odds[:, 1] / odds[:, 0]), rtol=1e-9, atol=1e-9)


def test_it_predicts_what_its_network_computes(moons):
    x, y = moons
    model = MLPClassifier((5, 4), activation="tanh", random_state=1).fit(x, y)
    with torch.no_grad():
        scores = model.network_(torch.from_numpy(x))
    np.testing.assert_array_equal(model.predict(x), scores.argmax(1).numpy())
    assert [tuple(p.shape) for p in model.network_.parameters() if p.ndim == 2] == [(5, 2), (4, 5), (2, 4)]


def test_the_seed_decides(moons):
    x, y = moons
    first, again, other = (MLPClassifier((5,), random_state=seed).fit(x, y).decision_function(x) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_fitting_leaves_the_global_generators_alone(moons):
    x, y = moons
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # it is what is watched
    MLPClassifier((5,), init="default").fit(x, y)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_pickles_and_clones(moons):
    x, y = moons
    model = MLPClassifier((5,), solver=ADMM(sweeps=5)).fit(x, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(x), model.predict_proba(x))
    assert clone(model).solver == ADMM(sweeps=5)
    assert not hasattr(clone(model), "network_")


def test_in_a_pipeline_under_a_grid_search():
    x, y = load_digits(return_X_y=True)
    x, y = x[:500], y[:500]  # several pixels are constant
    grid = {"mlpclassifier__solver": ["admm?ridge=0.01", "admm?ridge=1e6"]}
    search = GridSearchCV(make_pipeline(StandardScaler(), MLPClassifier((30,), random_state=0)), grid, cv=3).fit(x, y)
    assert search.best_params_ == {"mlpclassifier__solver": "admm?ridge=0.01"}  # the other one forces weights to zero
    assert search.best_score_ > 0.75  # guessing: 0.1


def test_targets_in_any_unit_are_predicted_alike():
    x = np.linspace(-1, 1, 100)[:, None]
    y = np.stack([x[:, 0] ** 2, np.sin(3 * x[:, 0])], 1)
    plain = MLPRegressor((20,), random_state=0).fit(x, y)
    scaled = MLPRegressor((20,), random_state=0).fit(x, 1e6 * y - 5e6)
    assert plain.predict(x).shape == (100, 2)
    assert plain.score(x, y) > 0.9
    # Rounding of 1e-16 relative to 5e6 in 1e6, which hundreds of steps may magnify.
    np.testing.assert_allclose((scaled.predict(x) + 5e6) / 1e6, plain.predict(x), atol=1e-6)


def test_a_constant_target_and_constant_columns():
    x = np.column_stack([np.linspace(0, 1, 20), np.full(20, 7.0)])
    model = MLPRegressor((4,)).fit(x, np.full(20, 3.0))
    np.testing.assert_allclose(model.predict(x), 3.0, atol=0.1)


def test_auto_says_what_it_took(moons):
    assert isinstance(MLPClassifier((3,)).fit(*moons).solver_, StochasticADMM)
    few = Data(torch.zeros(10, 2), torch.arange(10) % 2, classes=2)
    odd = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.GELU(), torch.nn.Linear(3, 2))
    assert isinstance(automatic(Problem(odd, few)), Backprop)


def test_what_cannot_be_fitted_is_said(moons):
    x, y = moons
    with pytest.raises(ValueError, match="one class, 1; give samples of at least two"):
        MLPClassifier().fit(x, np.ones(200, dtype=int))
    with pytest.raises(ValueError, match="unknown solver 'newton'; give one of adam"):
        MLPClassifier(solver="newton").fit(x, y)
    with pytest.raises(ValueError, match="unknown activation 'step'"):
        MLPClassifier(activation="step").fit(x, y)
    assert not hasattr(MLPClassifier(loss="squared"), "predict_proba")
    with pytest.warns(ConvergenceWarning, match="diverged"):
        # Rectified, or else saturation keeps it finite.
        MLPClassifier((5,), activation="relu", solver="sgd?lr=1e200&epochs=3").fit(x, y)
