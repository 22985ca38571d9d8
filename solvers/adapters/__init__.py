"""Adapters to the solvers of other libraries."""
