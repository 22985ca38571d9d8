"""Loops over the rows of one system, shared by the compiled steps of solvers."""

from __future__ import annotations

from typing import Any, cast

from ...options.libraries import needs
from .numba_code import Array, Function

with needs("numba", "compiled code"):
    import numba

# Vector instructions need sums in any order; NaN and infinity keep their meaning.
_REORDERED = {"reassoc", "contract", "arcp", "nsz"}


def jit_step(function: Function) -> Function:
    """Compile a step, and cache the code on disk for the next process."""
    compiled = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)
    return cast("Function", compiled(function))


@jit_step
def dot(a: Array, b: Array) -> Any:
    """`aᵀb`."""
    total = a.dtype.type(0.0)
    for j in range(a.shape[0]):
        total += a[j] * b[j]
    return total


@jit_step
def add_multiple(a: Array, factor: Any, b: Array) -> None:
    """`a += factor · b`."""
    for j in range(a.shape[0]):
        a[j] += factor * b[j]
