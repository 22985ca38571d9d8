"""Kernels that evaluate and differentiate a compiled function for a range of systems."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ...solvers.compiled.numba_code import Array, borrowed, compile_function, guarded, jit

_STEP = 2.0**-400
"""Complex step: its square vanishes beside 1, and its products with derivatives do not underflow."""


@lru_cache(maxsize=128)
def value_kernel(function: Any) -> Any:
    """`kernel(z, parameters, out, fill, start, stop)`; entries of `out` not written are `fill`."""
    value = guarded(function)

    @jit
    def evaluate(
        z: Array, parameters: Array, out: Array, fill: float, start: int, stop: int
    ) -> None:
        z, parameters, out = borrowed(z), borrowed(parameters), borrowed(out)
        out[start:stop] = fill
        for i in range(start, stop):
            value(z[i], parameters[i], out[i])

    return evaluate


@lru_cache(maxsize=128)
def complex_step_kernel(name: str, function: Any, shape: tuple[int, ...]) -> Any:
    """`work(z, parameters, out, by_z, start, stop)`; `out` is `(batch, entries of shape, columns)`.

    Raises:
        CompilationError: The function does not compile for complex numbers.
    """
    compile_function(name, function, "complex128", len(shape))
    value = guarded(function)

    @jit
    def differentiate(
        z: Array, parameters: Array, out: Array, by_z: bool, start: int, stop: int,
        z_row: Array, parameter_row: Array, at: Array, entries: Array,
    ) -> None:  # fmt: skip
        z_row, parameter_row = borrowed(z_row), borrowed(parameter_row)
        at, entries = borrowed(at), borrowed(entries)
        moved = z_row if by_z else parameter_row
        for i in range(start, stop):
            for j in range(len(z_row)):
                z_row[j] = z[i, j]
            for j in range(len(parameter_row)):
                parameter_row[j] = parameters[i, j]
            for j in range(len(moved)):
                moved[j] = complex(moved[j].real, _STEP)
                for m in range(len(entries)):
                    entries[m] = 0.0
                value(z_row, parameter_row, at)
                moved[j] = complex(moved[j].real, 0.0)
                for m in range(len(entries)):
                    # NaN for the derivative of a value that is not finite.
                    out[i, m, j] = entries[m].imag / _STEP + 0.0 * entries[m].real

    def work(z: Array, parameters: Array, out: Array, by_z: bool, start: int, stop: int) -> None:
        rows = np.empty(z.shape[1], np.complex128), np.empty(parameters.shape[1], np.complex128)
        at = np.empty(shape, np.complex128)
        differentiate(z, parameters, out, by_z, start, stop, *rows, at, at.reshape(-1))

    return work
