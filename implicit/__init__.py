"""The implicit-function layer: equations, the one derivative rule, gradient modes, the module."""

from .capture import CapturedTensorError
from .compiled_map import ComplexStepError
from .functional import fixed_point, root
from .gradients import (
    Exact,
    Gradient,
    JacobianFree,
    Neumann,
    Phantom,
    ReconstructionError,
    ReuseInverse,
    Reversible,
    Unrolled,
)
from .layer import ImplicitLayer
from .numba_equation import NumbaEquation
from .recurrence import recurrence

__all__ = [
    "CapturedTensorError",
    "ComplexStepError",
    "Exact",
    "Gradient",
    "ImplicitLayer",
    "JacobianFree",
    "Neumann",
    "NumbaEquation",
    "Phantom",
    "ReconstructionError",
    "ReuseInverse",
    "Reversible",
    "Unrolled",
    "fixed_point",
    "recurrence",
    "root",
]
