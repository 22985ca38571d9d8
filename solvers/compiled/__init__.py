"""Solver steps and whole solves of small systems, compiled by Numba."""
