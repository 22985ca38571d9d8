"""Curves of solutions: continuation, folds and branch points, sweeps, several roots of one equation."""
