"""The landscape of the empirical risk: curvature and paths."""
