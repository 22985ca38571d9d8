"""Gradient modes: exact derivatives of a solution by default, and approximations that say so."""

from .exact import Exact
from .least_squares import GaussNewtonApproximation, MinimumNorm
from .mode import Gradient, ImplicitGradient, LinearSolve, Recording, TapedGradient
from .phantom import Phantom
from .reuse_inverse import ReuseInverse
from .reversible import ReconstructionError, Reversible
from .series import JacobianFree, Neumann
from .unrolled import Unrolled

__all__ = [
    "Exact",
    "GaussNewtonApproximation",
    "Gradient",
    "ImplicitGradient",
    "JacobianFree",
    "LinearSolve",
    "MinimumNorm",
    "Neumann",
    "Phantom",
    "ReconstructionError",
    "Recording",
    "ReuseInverse",
    "Reversible",
    "TapedGradient",
    "Unrolled",
]
