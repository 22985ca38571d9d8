"""Newton's method in NumPy, independent of the package's solvers, for solutions without a closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..options.libraries import needs

Array = NDArray[np.float64]

_MOST_STEPS = 100


def zero_between(
    function: Callable[[float], float],
    low: float,
    high: float,
    *,
    xtol: float = 1e-300,
    rtol: float = 1e-15,
) -> float:
    """The zero between two points of different sign, by Brent's method in SciPy."""
    with needs("scipy", "a test problem"):
        from scipy.optimize import brentq

    return float(brentq(function, low, high, xtol=xtol, rtol=rtol))


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
        with needs("scipy", "a test problem"):
            from scipy.linalg import solve_banded

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
