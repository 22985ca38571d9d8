"""Kernels that evaluate and differentiate a compiled function for a range of systems."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ...solvers.compiled.numba_algebra import algebra
from ...solvers.compiled.numba_code import Array, borrowed, compile_function, guarded, jit
from ...solvers.linear.dense import SINGULAR_UNITS

_STEP = 2.0**-400
"""Complex step: its square vanishes beside 1, and its products with derivatives do not underflow."""
_ROUNDING_UNITS = 8.0
"""Roundings for each term of an equation that count as met."""


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


@lru_cache(maxsize=64)
def adjoint_kernel(n: int) -> tuple[Any, Any]:
    """`solve(jacobians, cotangents, out, norm, fixed, start, stop, *workspace())`, and `workspace`.

    Solves `Jᵀ u = −g`, or `(I − Jᵀ) u = g` of a fixed point, with `norm` the root-mean-square residual: NaN
    for a system that is not solved to rounding, or is numerically singular.
    """
    norm_of, invert, _, _ = algebra(n)
    eps = np.finfo(np.float64).eps
    rounding, regular = _ROUNDING_UNITS * n * eps, 1.0 / (SINGULAR_UNITS * n**0.5 * eps)

    @jit
    def equilibrated(matrix: Array, scaled: Array, row: Array, column: Array) -> float:
        """Write the matrix with a largest entry of 1 in each column, then row; return its norm, squared."""
        for k in range(n):
            column[k] = 0.0
            for j in range(n):
                column[k] = max(column[k], abs(matrix[j, k]))
            column[k] = 1.0 / column[k]
        size = 0.0
        for j in range(n):
            row[j] = 0.0
            for k in range(n):
                row[j] = max(row[j], abs(matrix[j, k]) * column[k])
            row[j] = 1.0 / row[j]
            for k in range(n):
                scaled[j, k] = row[j] * matrix[j, k] * column[k]
                size += scaled[j, k] ** 2
        return size

    @jit
    def corrected(inverse: Array, row: Array, column: Array, rest: Array, u: Array) -> None:
        """Add the solution for what is left of the right-hand side."""
        for k in range(n):
            total = 0.0
            for j in range(n):
                total += inverse[k, j] * (row[j] * rest[j])
            u[k] += column[k] * total

    @jit
    def left(matrix: Array, right: Array, u: Array, rest: Array) -> bool:
        """Write what is left of the right-hand side; true if in each equation it is its rounding."""
        met = True
        for j in range(n):
            rest[j], terms = right[j], abs(right[j])
            for k in range(n):
                rest[j] -= matrix[j, k] * u[k]
                terms += abs(matrix[j, k] * u[k])
            met = met and abs(rest[j]) <= rounding * terms
        return met

    @jit
    def solve(
        jacobians: Array, cotangents: Array, out: Array, norm: Array, fixed: bool,
        start: int, stop: int, matrices: Array, rows: Array, order: Array,
    ) -> None:  # fmt: skip
        jacobians, cotangents, out = borrowed(jacobians), borrowed(cotangents), borrowed(out)
        matrices, rows, order = borrowed(matrices), borrowed(rows), borrowed(order)
        matrix, scaled, lu, inverse = matrices[0], matrices[1], matrices[2], matrices[3]
        row, column, right, rest = rows[0], rows[1], rows[2], rows[3]
        for i in range(start, stop):
            u = out[i]
            for j in range(n):
                for k in range(n):
                    entry = jacobians[i, k, j]
                    matrix[j, k] = (1.0 if j == k else 0.0) - entry if fixed else entry
                right[j] = cotangents[i, j] if fixed else -cotangents[i, j]
                rest[j], u[j] = right[j], 0.0
            size = equilibrated(matrix, scaled, row, column)
            norm[i] = np.nan
            if not invert(scaled, lu, inverse, order):
                continue
            of_inverse = 0.0
            for j in range(n):
                for k in range(n):
                    of_inverse += inverse[j, k] ** 2
            if not size * of_inverse <= regular**2:
                continue
            corrected(inverse, row, column, rest, u)
            left(matrix, right, u, rest)
            corrected(inverse, row, column, rest, u)
            if left(matrix, right, u, rest):
                norm[i] = norm_of(rest)

    def workspace() -> tuple[Array, ...]:
        return np.empty((4, n, n)), np.empty((4, n)), np.empty(n, np.int64)

    return solve, workspace
