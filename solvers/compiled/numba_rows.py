"""What the compiled steps of solvers share: loops over one system's rows."""

from __future__ import annotations

from typing import Any, cast

import numba

from .numba_code import Array, Function

# Sums may be taken in any order, as vector instructions need; NaN and infinity keep their meaning.
_REORDERED = {"reassoc", "contract", "arcp", "nsz"}


def jit_step(function: Function) -> Function:
    """Compile a step, and keep the code on disk for the next process."""
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
