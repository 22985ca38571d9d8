"""Equations, the linear equations derived from them, and both as flat problems for solvers."""
