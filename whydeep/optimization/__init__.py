"""What does the landscape of the empirical risk look like, and how is it minimised efficiently?"""

from .alternating.admm.admm import ADMM as ADMM
from .alternating.bcd.bcd import BCD as BCD
from .alternating.bcd.stochastic import StochasticBCD as StochasticBCD
from .alternating.dladmm import DLADMM as DLADMM
from .alternating.stochastic_admm.stochastic_admm import StochasticADMM as StochasticADMM
from .alternating.taylor import TaylorADMM as TaylorADMM
from .backprop import Backprop as Backprop
from .distributed.checkpoint import Checkpoint as Checkpoint
from .distributed.group import Processes as Processes
from .distributed.group import joined as joined
from .entropy_sgd import EntropySGD as EntropySGD
from .gradient_flow import dense_layers as dense_layers
from .gradient_flow import gradient_norms as gradient_norms
from .gradient_flow import mean_field as mean_field
from .langevin.clipped_gradients import batch_heat as batch_heat
from .langevin.clipped_gradients import clipped_gradients as clipped_gradients
from .langevin.run import langevin_run as langevin_run
from .langevin.sgld import SGLD as SGLD
from .msa import EMSA as EMSA
from .msa import MSA as MSA
from .named import automatic as automatic
from .named import by_name as by_name
from .parle import Parle as Parle
from .saddle_free_newton import SaddleFreeNewton as SaddleFreeNewton
