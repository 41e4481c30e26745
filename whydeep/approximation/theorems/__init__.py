"""Claims on approximation, one file each."""
