"""The implicit-function layer: equations, the one derivative rule, gradient modes, the module."""

from .capture import CapturedTensorError
from .functional import fixed_point, root
from .gradients import Exact, Gradient, JacobianFree, Neumann, Phantom, Unrolled
from .layer import ImplicitLayer
from .recurrence import recurrence

__all__ = [
    "CapturedTensorError",
    "Exact",
    "Gradient",
    "ImplicitLayer",
    "JacobianFree",
    "Neumann",
    "Phantom",
    "Unrolled",
    "fixed_point",
    "recurrence",
    "root",
]
