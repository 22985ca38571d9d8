"""Equations traced to graphs of tensor operations."""
