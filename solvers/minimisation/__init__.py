"""Minimisers: trust regions on dense and on large Hessians, limited-memory BFGS, gradient descent."""
