"""Solvers of scalar equations."""
