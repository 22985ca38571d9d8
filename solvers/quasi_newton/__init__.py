"""Solvers that learn of the Jacobian from the residuals they have seen."""
