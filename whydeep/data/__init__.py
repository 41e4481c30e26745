"""Data: readers for the user's files, synthetic sets with a known truth, and corruptions."""

from .accept import as_data as as_data
from .corruption import deform as deform
from .corruption import gaussian_pixels as gaussian_pixels
from .corruption import label_noise as label_noise
from .corruption import random_labels as random_labels
from .corruption import random_pixels as random_pixels
from .corruption import shift as shift
from .corruption import shuffled_pixels as shuffled_pixels
from .corruption import warp as warp
from .sources import load as load
from .sources import load_heldout as load_heldout
from .split import split as split
from .split import standardise as standardise
from .synthetic import bayes_error as bayes_error
from .synthetic import compositional as compositional
from .synthetic import gaussian_mixture as gaussian_mixture
from .synthetic import ridge_sum as ridge_sum
from .synthetic import spirals as spirals
from .synthetic import teacher_student as teacher_student
