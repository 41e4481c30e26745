"""The solvers of the lecture as scikit-learn estimators."""

from .perceptron import MLPClassifier as MLPClassifier
from .perceptron import MLPRegressor as MLPRegressor
