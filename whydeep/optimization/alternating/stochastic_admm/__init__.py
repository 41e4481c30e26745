"""The weight step of ADMM on minibatches, from a point that is feasible again each time."""
