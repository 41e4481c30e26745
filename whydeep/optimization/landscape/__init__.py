"""The landscape of the empirical risk: curvature and paths."""

from . import linear_networks as linear_networks
from . import pennington_bahri as pennington_bahri
from . import teacher_student as teacher_student
from .hessian import Hessian as Hessian
from .learned import learned as learned
from .paths import Profile as Profile
from .paths import straight as straight
from .slices import rise as rise
from .spectrum import Extremes as Extremes
from .spectrum import Spectrum as Spectrum
from .spectrum import extremes as extremes
from .spectrum import spectrum as spectrum
from .spectrum import trace as trace
