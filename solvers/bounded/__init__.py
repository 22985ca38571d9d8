"""Solvers of equations with bounds on the unknowns."""
