"""The kernel of `NumbaRoot` for systems of several unknowns: Newton with dense LU and Broyden's update."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ..newton.parabola import SUFFICIENT_DECREASE
from .numba_algebra import algebra
from .numba_code import (
    CONVERGED,
    HALF_DIGITS,
    LOST,
    MAX_STEPS,
    MOST_PROBES,
    NON_FINITE,
    REUSE,
    SINGULAR,
    STALLED,
    Array,
    borrowed,
    guarded,
    jit,
    shorter,
)


@lru_cache(maxsize=64)
def kernel(function: Any, jacobian: Any, n: int, form: str) -> tuple[Any, Any]:
    """The kernel, called as in `NumbaRoot.run`, and a function that makes its workspace."""
    value = guarded(function)
    given = jacobian is not None
    derivative = guarded(jacobian) if given else value
    fixed = form == "fixed_point"
    norm_of, invert, regularise, update = algebra(n)

    @jit
    def evaluate(z: Array, parameters: Array, r: Array) -> float:
        """Write the residual at `z` to `r`, and return its norm."""
        value(z, parameters, r)
        for j in range(n):
            r[j] = r[j] - z[j] if fixed else -r[j]
        return norm_of(r)

    @jit
    def goal(tolerance: Array, z: Array) -> float:
        return tolerance[0] + tolerance[1] * norm_of(z) if fixed else tolerance[0]

    @jit
    def differences(
        z: Array, parameters: Array, r: Array, norm: float, point: Array, at: Array, matrix: Array
    ) -> int:
        """Write forward differences of the residual to `matrix`; return the number of evaluations."""
        evaluations = 0
        largest = 0.0
        for j in range(n):
            point[j] = z[j]
            largest = max(largest, abs(z[j]))
        for j in range(n):
            width = HALF_DIGITS * (z[j] if z[j] != 0.0 else largest)
            known = width != 0.0
            if not known:
                width = HALF_DIGITS
            for _ in range(MOST_PROBES):
                point[j] = z[j] + width
                width = point[j] - z[j]
                evaluate(point, parameters, at)
                evaluations += 1
                for k in range(n):
                    at[k] -= r[k]
                change = norm_of(at)
                if not known and 0.0 < change < math.inf:
                    known = True
                    width *= HALF_DIGITS * norm / change
                elif not change > LOST * norm:
                    width /= HALF_DIGITS
                else:
                    break
            for k in range(n):
                matrix[k, j] = at[k] / (point[j] - z[j])
            point[j] = z[j]
        return evaluations

    @jit
    def linearize(
        z: Array, parameters: Array, r: Array, norm: float, point: Array, at: Array, matrix: Array
    ) -> int:
        if not given:
            return differences(z, parameters, r, norm, point, at, matrix)
        for j in range(n):
            for k in range(n):
                matrix[j, k] = 0.0
        derivative(z, parameters, matrix)
        for j in range(n):
            for k in range(n):
                matrix[j, k] = matrix[j, k] - (1.0 if j == k else 0.0) if fixed else -matrix[j, k]
        return 0

    @jit
    def solve_one(
        z: Array, parameters: Array, r: Array, known: bool, tolerance: Array, limits: Array,
        matrices: Array, rows: Array, order: Array,
    ) -> tuple[int, int, int, int]:  # fmt: skip
        max_steps, max_evaluations, max_updates, max_trials = limits
        matrix, inverse, lu, square = matrices[0], matrices[1], matrices[2], matrices[3]
        step, point, at, column, row = rows[0], rows[1], rows[2], rows[3], rows[4]
        norm = norm_of(r) if known else evaluate(z, parameters, r)
        steps, evaluations, jacobians, updates = 0, 0, 0, -1
        if not norm < math.inf:
            return NON_FINITE, steps, evaluations, jacobians
        if norm <= goal(tolerance, z):
            return CONVERGED, steps, evaluations, jacobians
        while steps < max_steps and evaluations < max_evaluations:
            regularised = False
            if updates < 0:
                evaluations += linearize(z, parameters, r, norm, point, at, matrix)
                jacobians += 1
                updates = 0
                if evaluations >= max_evaluations:
                    break
                if not invert(matrix, lu, inverse, order):
                    regularised = True
                    if not regularise(matrix, square, lu, inverse, order):
                        return SINGULAR, steps, evaluations, jacobians
            steps += 1
            length, trials = 1.0, 0
            while True:
                moved = False
                for j in range(n):
                    if trials == 0:
                        entry = 0.0
                        for k in range(n):
                            entry -= inverse[j, k] * r[k]
                        step[j] = entry
                    point[j] = z[j] + length * step[j]
                    moved = moved or point[j] != z[j]
                size = evaluate(point, parameters, at)
                evaluations += 1
                trials += 1
                if size <= goal(tolerance, point):
                    for j in range(n):
                        z[j], r[j] = point[j], at[j]
                    return CONVERGED, steps, evaluations, jacobians
                if size <= (1.0 - SUFFICIENT_DECREASE * length) * norm:
                    good = size <= REUSE * norm and length == 1.0 and updates < max_updates
                    if good and not regularised and update(inverse, step, r, at, column, row):
                        updates += 1
                    else:
                        updates = -1
                    for j in range(n):
                        z[j], r[j] = point[j], at[j]
                    norm = size
                    break
                if updates > 0:
                    updates = -1
                    break
                if evaluations >= max_evaluations:
                    break
                if trials < max_trials and moved:
                    length = shorter(length, size / norm)
                elif regularised or not regularise(matrix, square, lu, inverse, order):
                    return STALLED, steps, evaluations, jacobians
                else:
                    regularised, length, trials = True, 1.0, 0
        return MAX_STEPS, steps, evaluations, jacobians

    @jit
    def solve(
        z: Array, parameters: Array, residual: Array, known: bool, tolerances: Array, limits: Array,
        counters: Array, start: int, stop: int, matrices: Array, rows: Array, order: Array,
    ) -> None:  # fmt: skip
        z, parameters, residual = borrowed(z), borrowed(parameters), borrowed(residual)
        tolerances, counters = borrowed(tolerances), borrowed(counters)
        matrices, rows, order = borrowed(matrices), borrowed(rows), borrowed(order)
        for i in range(start, stop):
            counters[i, 0], counters[i, 1], counters[i, 2], counters[i, 3] = solve_one(
                z[i],
                parameters[i],
                residual[i],
                known,
                tolerances[i],
                limits,
                matrices,
                rows,
                order,
            )

    def workspace() -> tuple[Array, ...]:
        return np.empty((4, n, n)), np.empty((5, n)), np.empty(n, np.int64)

    return solve, workspace
