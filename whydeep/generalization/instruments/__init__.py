"""Instruments for generalization, one file each."""
