"""The demonstration: an equilibrium network on real text, four solvers, checked gradients."""

from .demonstration import run

__all__ = ["run"]
