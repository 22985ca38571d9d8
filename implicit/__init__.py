"""The implicit-function layer: equations, the one derivative rule, gradient modes, the module."""

from .compiled.compiled_map import ComplexStepError
from .compiled.numba_equation import NumbaEquation
from .equations.capture import CapturedTensorError
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
