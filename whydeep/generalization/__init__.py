"""How can a deep network generalize well without overfitting the noise?"""

from .capacity import capacity_table as capacity_table
from .certificate import Certificate as Certificate
from .certifying import certify as certify
from .inversion import binary_kl as binary_kl
from .inversion import binomial_tail_inverse as binomial_tail_inverse
from .inversion import kl_inverse as kl_inverse
from .random_labels import compare_labels as compare_labels
from .risk import decompose as decompose
from .sgld_certificate import sgld_certificate as sgld_certificate
from .stability import langevin_stability as langevin_stability
