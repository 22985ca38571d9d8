"""Newton's method in NumPy, independent of the package's solvers, for solutions without a closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_banded

Array = NDArray[np.float64]

_MOST_STEPS = 100


def dense_newton(residual: Callable[[Array], tuple[Array, Array]], z: Array) -> Array:
    """The root near `z` to rounding; `residual` returns `F` and its Jacobian."""

    def step(z: Array) -> Array:
        value, jacobian = residual(z)
        return np.asarray(np.linalg.solve(jacobian, value), dtype=np.float64)

    return _newton(step, z)


def banded_newton(
    residual: Callable[[Array], tuple[Array, Array]], z: Array, lower: int, upper: int
) -> Array:
    """The same for a banded Jacobian, stored by diagonals for `scipy.linalg.solve_banded`."""

    def step(z: Array) -> Array:
        value, diagonals = residual(z)
        return np.asarray(solve_banded((lower, upper), diagonals, value))

    return _newton(step, z)


def _newton(step: Callable[[Array], Array], z: Array) -> Array:
    """Apply steps until they stop shrinking and are rounding errors."""
    last = np.inf
    for _ in range(_MOST_STEPS):
        move = step(z)
        size = float(np.linalg.norm(move))
        if size >= last and size <= 1e-6 * float(np.linalg.norm(z)):
            return z
        z, last = z - move, size
    raise ArithmeticError(f"Newton's method did not settle: last step {last:.1e}")
