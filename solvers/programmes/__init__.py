"""Convex quadratic programmes: solvers for batches, and the exact answer on the active set."""
