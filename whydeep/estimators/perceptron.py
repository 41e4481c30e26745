"""Multilayer perceptrons for scikit-learn, trained by any solver of the library."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from whydeep.core.data import Data
from whydeep.core.evaluation import outputs
from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed
from whydeep.core.training import Solver
from whydeep.networks.mlp import mlp
from whydeep.optimization.named import automatic, by_name

# A sigmoid has slope 1/4 at zero: gain 4 keeps signals and gradients of their size from layer to layer.
GAINS = {"sigmoid": 4.0}


class MLPClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A multilayer perceptron that classifies, trained by back-propagation or by an alternating method.

    hidden_layer_sizes: width of every hidden layer; () is a linear classifier.
    activation: "sigmoid", "tanh", "relu", "leaky_relu", "silu", "softplus" or "identity".
    solver: "NAME?key=value&..." as on the command line ("admm?sweeps=60&ridge=0.1", "adam?lr=0.01"), a solver object,
    or "auto", the better of them by measurement (`whydeep.optimization.automatic`); `solver_` says what was taken.
    loss: "cross_entropy", "squared" or "hinge".
    init, gain: of the weights, as in `whydeep.networks.mlp`; gain None takes 4 for the sigmoid and 1 for the rest.
    random_state: of the weights and of the solver.

    Inputs are taken as they are: put a StandardScaler before it. `predict_proba` exists for the cross-entropy.
    Fitted: `network_` (nn.Sequential), `solver_`, `history_`, `outcome_`, `classes_`, `n_features_in_`, `n_iter_`
    (passes). Warns by `ConvergenceWarning` when the training diverged; the network is then the best that it had.
    Raises `ValueError` on one class only, on sparse or not finite input, and on a solver that cannot take the network.

    >>> from sklearn.datasets import make_moons
    >>> x, y = make_moons(200, noise=0.1, random_state=0)
    >>> MLPClassifier((20, 20), random_state=0).fit(x, y).score(x, y) > 0.97
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (100,),
        *,
        activation: str = "sigmoid",
        solver: str | Solver = "auto",
        loss: str = "cross_entropy",
        init: str = "xavier",
        gain: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.loss = loss
        self.init = init
        self.gain = gain
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> MLPClassifier:  # scikit-learn's name
        """Train on samples (n, d) with labels (n,) of any type."""
        x, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class, {self.classes_[0]}; give samples of at least two classes")
        data = Data(torch.from_numpy(x.copy()), torch.from_numpy(codes).long(), classes=len(self.classes_))
        _train(self, data, len(self.classes_), self.loss)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Return the outputs of the network, (n, classes); for two classes that of the second less the first, (n,)."""
        scores = _outputs(self, X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the label with the largest output, (n,)."""
        best = _outputs(self, X).argmax(1)
        chosen: NDArray[Any] = self.classes_[best]
        return chosen

    @available_if(lambda self: self.loss == "cross_entropy")  # type: ignore[untyped-decorator]
    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the softmax of the outputs, (n, classes)."""
        return torch.softmax(torch.from_numpy(_outputs(self, X)), 1).numpy()


class MLPRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A multilayer perceptron that predicts numbers, trained by the squared loss.

    Parameters and attributes as in `MLPClassifier`. Targets (n,) or (n, k) are shifted and scaled to mean 0 and
    standard deviation 1 for the training (`target_mean_`, `target_scale_`), so that ridge and step size mean the same
    in whatever unit they come; a constant target is shifted only.

    >>> x = np.linspace(-1, 1, 200)[:, None]
    >>> model = MLPRegressor((30, 30), solver="admm?ridge=1e-6&sweeps=20", gain=8.0, random_state=0)
    >>> model.fit(x, x[:, 0] ** 2).score(x, x[:, 0] ** 2) > 0.9999
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (100,),
        *,
        activation: str = "sigmoid",
        solver: str | Solver = "auto",
        init: str = "xavier",
        gain: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.init = init
        self.gain = gain
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> MLPRegressor:
        """Train on samples (n, d) with targets (n,) or (n, k)."""
        x, target = validate_data(self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True)
        target = target.astype(x.dtype)
        self.target_mean_, spread = target.mean(0), target.std(0)
        self.target_scale_ = np.where(spread > 0, spread, 1).astype(x.dtype)
        scaled = (target - self.target_mean_) / self.target_scale_
        columns = scaled.reshape(len(x), -1)
        _train(self, Data(torch.from_numpy(x.copy()), torch.from_numpy(columns.copy())), columns.shape[1], "squared")
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the predictions, shaped like the targets of the training."""
        found = _outputs(self, X)
        if np.ndim(self.target_mean_) == 0:
            found = found[:, 0]
        predicted: NDArray[Any] = found * self.target_scale_ + self.target_mean_
        return predicted

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that targets may have several columns."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _train(estimator: Any, data: Data, columns: int, loss: str) -> None:
    """Train a fresh network on `data` and keep it, its solver and its history on the estimator."""
    seed = int(check_random_state(estimator.random_state).randint(np.iinfo(np.int32).max))
    generator = torch.Generator().manual_seed(seed)
    gain = GAINS.get(estimator.activation, 1.0) if estimator.gain is None else estimator.gain
    widths = (estimator.n_features_in_, *estimator.hidden_layer_sizes, columns)
    with global_seed(generator):
        # Drawn here also for init="default", for which PyTorch has its global generator only.
        network = mlp(widths, activation=estimator.activation, init=estimator.init, gain=gain, generator=generator)
    problem = Problem(network.to(data.x.dtype), data, loss=loss)
    solver = estimator.solver
    if isinstance(solver, str):
        solver = automatic(problem) if solver == "auto" else by_name(solver, samples=len(data))
    training = solver.train(problem, generator=generator)
    if training.outcome.diverged:
        warnings.warn(f"the training diverged: {training.outcome.reason}", ConvergenceWarning, stacklevel=3)
    estimator.network_, estimator.solver_ = training.model, solver
    estimator.history_ = {name: values.numpy() for name, values in training.history.items()}
    estimator.outcome_ = training.outcome
    estimator.n_iter_ = len(training.history["seconds"]) - 1


def _outputs(estimator: Any, samples: ArrayLike) -> NDArray[Any]:
    """Return the outputs of the fitted network, (n, k)."""
    check_is_fitted(estimator)
    x = validate_data(estimator, samples, dtype=[np.float64, np.float32], reset=False)
    weight = next(estimator.network_.parameters())
    found: NDArray[Any] = outputs(estimator.network_, Data(torch.from_numpy(x.copy()).to(weight.dtype))).numpy()
    return found
