"""The networks of the lecture, and ways to bring in one's own."""

from .cnn import cnn as cnn
from .linear import linear as linear
from .mlp import mlp as mlp
