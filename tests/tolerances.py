"""Tolerances of three kinds, in one place."""

IDENTITY = 1e-12  # equal but for rounding
SOLVER = 10.0  # times what was asked of the solver
SIGMAS = 4.0  # standard errors, measured from the replicas of that very test
