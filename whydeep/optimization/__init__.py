"""What does the landscape of the empirical risk look like, and how is it minimised efficiently?"""

from .admm import ADMM as ADMM
from .backprop import Backprop as Backprop
from .bcd import BCD as BCD
from .checkpoint import Checkpoint as Checkpoint
from .clipped_gradients import batch_heat as batch_heat
from .clipped_gradients import clipped_gradients as clipped_gradients
from .distributed import Processes as Processes
from .distributed import joined as joined
from .dladmm import DLADMM as DLADMM
from .entropy_sgd import EntropySGD as EntropySGD
from .gradient_flow import dense_layers as dense_layers
from .gradient_flow import gradient_norms as gradient_norms
from .gradient_flow import mean_field as mean_field
from .langevin_run import langevin_run as langevin_run
from .msa import EMSA as EMSA
from .msa import MSA as MSA
from .named import automatic as automatic
from .named import by_name as by_name
from .parle import Parle as Parle
from .saddle_free_newton import SaddleFreeNewton as SaddleFreeNewton
from .sgld import SGLD as SGLD
from .stochastic_admm import StochasticADMM as StochasticADMM
from .taylor import TaylorADMM as TaylorADMM
