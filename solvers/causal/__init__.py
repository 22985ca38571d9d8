"""Solvers for sequences in which each time step depends on the one before."""
