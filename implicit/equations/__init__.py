"""Equations, their derived linear equations, and both as flat problems for solvers."""
