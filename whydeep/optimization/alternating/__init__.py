"""Training without back-propagation: every layer solves its own problem, in turns."""
