"""The landscape of the empirical risk: curvature and paths."""

from . import factorization as factorization
from . import linear_networks as linear_networks
from . import pennington_bahri as pennington_bahri
from . import perturbed_convex as perturbed_convex
from . import quadratic_networks as quadratic_networks
from . import spin_glass as spin_glass
from . import teacher_student as teacher_student
from . import tensor_power as tensor_power
from .critical_points import SearchEnd as SearchEnd
from .critical_points import find_critical_point as find_critical_point
from .hessian import Hessian as Hessian
from .learned import learned as learned
from .leg import Path as Path
from .paths import path as path
from .paths import straight as straight
from .permutation import align as align
from .profile import Profile as Profile
from .slices import rise as rise
from .spectrum import Spectrum as Spectrum
from .spectrum import matrix_spectrum as matrix_spectrum
from .spectrum import spectrum as spectrum
