"""What does the landscape of the empirical risk look like, and how is it minimised efficiently?"""

from .backprop import Backprop as Backprop
