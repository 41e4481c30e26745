"""What are the optimal, transferable representations of signals, and why is the network fragile?"""

from .adversarial import Attack as Attack
from .adversarial import attack as attack
from .adversarial import halving_radius as halving_radius
from .adversarial import random_signs as random_signs
from .critical_radius import linear_critical_radius as linear_critical_radius
from .features import Layer as Layer
from .features import features as features
from .features import layers as layers
from .filters import first_filters as first_filters
from .filters import neighbour_correlation as neighbour_correlation
from .filters import pictures as pictures
from .filters import smoothness_p_values as smoothness_p_values
from .probe import Probe as Probe
from .probe import gain as gain
from .probe import probe as probe
from .probe import standardised as standardised
