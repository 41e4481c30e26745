"""Instruments for optimization, one file each."""
