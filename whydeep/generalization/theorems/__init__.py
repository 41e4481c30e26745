"""Claims on generalization, one file each."""
