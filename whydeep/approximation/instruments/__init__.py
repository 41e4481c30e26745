"""Instruments for approximation, one file each."""
