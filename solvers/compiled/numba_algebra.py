"""Dense algebra for kernels of systems of `n` unknowns, with `n` known at compilation."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from .numba_code import Array, jit

_REGULARISATION = 1e-8
"""`μ` of Levenberg's step relative to `‖J‖²`: it damps singular values below 1e-4 `‖J‖`."""


@lru_cache(maxsize=64)
def algebra(n: int) -> tuple[Any, Any, Any, Any]:
    """`norm_of`, `invert`, `regularise` and `update` for vectors and matrices of size `n`."""

    @jit
    def norm_of(v: Array) -> float:
        total = 0.0
        for j in range(n):
            total += v[j] * v[j]
        return math.sqrt(total * (1.0 / n))

    @jit
    def invert(matrix: Array, lu: Array, inverse: Array, order: Array) -> bool:
        """Invert by LU with partial pivoting (its diagonal inverted); false if the matrix is singular."""
        for j in range(n):
            order[j] = j
            for k in range(n):
                lu[j, k] = matrix[j, k]
        for k in range(n):
            best = k
            for i in range(k + 1, n):
                if abs(lu[i, k]) > abs(lu[best, k]):
                    best = i
            if not 0.0 < abs(lu[best, k]) < math.inf:
                return False
            if best != k:
                order[k], order[best] = order[best], order[k]
                for j in range(n):
                    lu[k, j], lu[best, j] = lu[best, j], lu[k, j]
            lu[k, k] = 1.0 / lu[k, k]
            for i in range(k + 1, n):
                lu[i, k] *= lu[k, k]
                for j in range(k + 1, n):
                    lu[i, j] -= lu[i, k] * lu[k, j]
        for column in range(n):
            for i in range(n):
                entry = 1.0 if order[i] == column else 0.0
                for j in range(i):
                    entry -= lu[i, j] * inverse[j, column]
                inverse[i, column] = entry
            for i in range(n - 1, -1, -1):
                entry = inverse[i, column]
                for j in range(i + 1, n):
                    entry -= lu[i, j] * inverse[j, column]
                inverse[i, column] = entry * lu[i, i]
        return True

    @jit
    def regularise(matrix: Array, square: Array, lu: Array, inverse: Array, order: Array) -> bool:
        """Write `(JᵀJ + μI)⁻¹Jᵀ` to `inverse`: with it every step is a descent direction."""
        size = 0.0
        for j in range(n):
            for k in range(n):
                size += matrix[j, k] * matrix[j, k]
        for j in range(n):
            for k in range(n):
                total = _REGULARISATION * size if j == k else 0.0
                for i in range(n):
                    total += matrix[i, j] * matrix[i, k]
                square[j, k] = total
        if not invert(square, lu, inverse, order):
            return False
        for j in range(n):
            for k in range(n):
                square[j, k] = inverse[j, k]
        for j in range(n):
            for k in range(n):
                total = 0.0
                for i in range(n):
                    total += square[j, i] * matrix[k, i]
                inverse[j, k] = total
        return True

    @jit
    def update(inverse: Array, step: Array, r: Array, at: Array, column: Array, row: Array) -> bool:
        """Broyden's update of the inverse for a step from `r` to `at` (Dennis & Schnabel 1983, 8.3.1)."""
        scale = 0.0
        for j in range(n):
            moved, weight = 0.0, 0.0
            for k in range(n):
                moved += inverse[j, k] * (at[k] - r[k])
                weight += step[k] * inverse[k, j]
            column[j], row[j] = step[j] - moved, weight
            scale += step[j] * moved
        scale = 1.0 / scale
        if not math.isfinite(scale):
            return False
        for j in range(n):
            for k in range(n):
                inverse[j, k] += column[j] * (row[k] * scale)
        return True

    return norm_of, invert, regularise, update
