"""Whole solves as one graph of tensor operations, compiled ahead of time."""
