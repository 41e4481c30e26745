"""ADMM as the lecture specifies it: backward estimation, forward correction, multipliers."""
