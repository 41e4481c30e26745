"""Landscapes that can be written down: what the theorems speak about."""
