"""How can a deep network generalize well without overfitting the noise?"""

from .certificate import Certificate as Certificate
from .certificate import certify as certify
from .risk import Decomposition as Decomposition
from .risk import decompose as decompose
