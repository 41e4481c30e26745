"""How can a deep network generalize well without overfitting the noise?"""

from .capacity.rademacher_average import rademacher_average as rademacher_average
from .capacity.table import capacity_table as capacity_table
from .certificates.certificate import Certificate as Certificate
from .certificates.certifying import certify as certify
from .certificates.inversion import binary_kl as binary_kl
from .certificates.inversion import binomial_tail_inverse as binomial_tail_inverse
from .certificates.inversion import kl_inverse as kl_inverse
from .certificates.sgld_certificate import sgld_certificate as sgld_certificate
from .certificates.stability import langevin_stability as langevin_stability
from .experiments.double_descent import random_features as random_features
from .experiments.double_descent import width_sweep as width_sweep
from .experiments.excess_risk import split_excess_risk as split_excess_risk
from .experiments.expressivity import memorising_network as memorising_network
from .experiments.gradient_noise import gradient_noise as gradient_noise
from .experiments.learning_curve import gap_by_samples as gap_by_samples
from .experiments.learning_curve import overtrain as overtrain
from .experiments.neural_collapse import neural_collapse as neural_collapse
from .experiments.random_labels import compare_labels as compare_labels
from .experiments.random_labels import fit_corrupted as fit_corrupted
from .risk import decompose as decompose
