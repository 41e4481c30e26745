"""Training by many processes, from files, and taken up again."""
