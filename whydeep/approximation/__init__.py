"""When and why are deep networks better than shallow ones?"""

from .constructive import sawtooth as sawtooth
from .constructive import squaring as squaring
from .pieces import Pieces as Pieces
from .pieces import kinks as kinks
from .pieces import pieces as pieces
from .ridge import ridge_sum as ridge_sum
