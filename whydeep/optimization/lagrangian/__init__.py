"""The augmented Lagrangian, its KKT conditions, and what the convergence theorem asks of ADMM's parameters."""

from .compliance import ladder as ladder
from .compliance import smallest_convergent as smallest_convergent
from .conditions import theorem_conditions as theorem_conditions
from .kkt import Lagrangian as Lagrangian
from .kkt import kkt_residuals as kkt_residuals
from .kkt import lagrangian_of as lagrangian_of
from .kkt import multipliers_of as multipliers_of
