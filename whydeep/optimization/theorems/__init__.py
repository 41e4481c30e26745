"""Claims on optimization, one file each."""
