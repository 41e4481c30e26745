"""How can a deep network generalize well without overfitting the noise?"""

from .capacity import capacity_ledger as capacity_ledger
from .certificate import Certificate as Certificate
from .certificate import certify as certify
from .random_labels import compare_labels as compare_labels
from .risk import decompose as decompose
