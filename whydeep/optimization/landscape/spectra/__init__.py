"""Curvature: eigenvalues, trace and density of the Hessian by products with it."""
