"""The Langevin laboratory: what SGLD must do on energies of one dimension, predicted and measured."""

from .chains import Experiment as Experiment
from .chains import Point as Point
from .chains import run_chains as run_chains
from .concentration import concentration as concentration
from .double_well import double_well as double_well
from .kramers import escape_times as escape_times
from .quadratic import stationary_variance as stationary_variance
