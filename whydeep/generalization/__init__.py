"""How can a deep network generalize well without overfitting the noise?"""

from .capacity import capacity_table as capacity_table
from .certificate import Certificate as Certificate
from .certifying import certify as certify
from .double_descent import random_features as random_features
from .double_descent import width_sweep as width_sweep
from .excess_risk import split_excess_risk as split_excess_risk
from .expressivity import memorising_network as memorising_network
from .gradient_noise import gradient_noise as gradient_noise
from .inversion import binary_kl as binary_kl
from .inversion import binomial_tail_inverse as binomial_tail_inverse
from .inversion import kl_inverse as kl_inverse
from .learning_curve import gap_by_samples as gap_by_samples
from .learning_curve import overtrain as overtrain
from .neural_collapse import neural_collapse as neural_collapse
from .rademacher_average import rademacher_average as rademacher_average
from .random_labels import compare_labels as compare_labels
from .random_labels import fit_corrupted as fit_corrupted
from .risk import decompose as decompose
from .sgld_certificate import sgld_certificate as sgld_certificate
from .stability import langevin_stability as langevin_stability
