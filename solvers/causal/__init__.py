"""Sequences in which each time step depends on the one before."""
