"""The page: a record as one self-contained HTML file."""

from .page import page as page
from .page import write as write
