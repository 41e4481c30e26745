"""Data that are drawn, so that the truth is known."""

from .compositional import compositional as compositional
from .compositional import tree_function as tree_function
from .gaussian_mixture import bayes_error as bayes_error
from .gaussian_mixture import gaussian_mixture as gaussian_mixture
from .ridge_sum import ridge_sum as ridge_sum
from .spirals import spirals as spirals
from .teacher_student import teacher_student as teacher_student
