"""Experiments on generalization: random labels, double descent, neural collapse."""
