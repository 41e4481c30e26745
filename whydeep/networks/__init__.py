"""The networks of the lecture, and ways to bring in one's own."""

from .cnn import cnn as cnn
from .linear import linear as linear
from .mlp import mlp as mlp
from .named import by_name as by_name
from .normalise import normalised as normalised
from .perceptron import perceptron as perceptron
from .source import Source as Source
from .source import load_object as load_object
from .summary import Summary as Summary
from .summary import summary as summary
from .weights import load_weights as load_weights
from .weights import save_weights as save_weights
