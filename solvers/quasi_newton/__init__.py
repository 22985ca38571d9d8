"""Solvers that approximate the Jacobian from residuals alone."""
