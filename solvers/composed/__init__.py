"""Solvers made of solvers."""
