"""Instruments for representation, one file each."""
