"""Claims on representation, one file each."""
