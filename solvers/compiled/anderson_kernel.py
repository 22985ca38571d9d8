"""Compiled step of Anderson's method, type II, for one system after another.

It computes the same as `Anderson.step`. There each operation runs over all systems; here all operations run
over one system while its moves are in the cache.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from .numba_code import Array, borrowed
from .numba_rows import add_multiple, dot, jit_step


@jit_step
def solve_small(matrix: Array, right: Array, size: int) -> None:
    """Solve the leading `size` equations in place, by elimination with partial pivoting."""
    for k in range(size):
        pivot = k
        for i in range(k + 1, size):
            if abs(matrix[i, k]) > abs(matrix[pivot, k]):
                pivot = i
        if pivot != k:
            for j in range(k, size):
                matrix[k, j], matrix[pivot, j] = matrix[pivot, j], matrix[k, j]
            right[k], right[pivot] = right[pivot], right[k]
        for i in range(k + 1, size):
            factor = matrix[i, k] / matrix[k, k]
            for j in range(k + 1, size):
                matrix[i, j] -= factor * matrix[k, j]
            right[i] -= factor * right[k]
    for k in range(size - 1, -1, -1):
        for j in range(k + 1, size):
            right[k] -= matrix[k, j] * right[j]
        right[k] /= matrix[k, k]


@jit_step
def extrapolate(
    residuals: Array,
    targets: Array,
    weights: Array,
    current: int,
    floor: float,
    relative: float,
    workspace: tuple[Array, Array, Array],
    z_next: Array,
) -> None:
    """Write the next iterate of one system: the combination of its rows that `Anderson` describes."""
    slots = residuals.shape[0]
    used, matrix, right = workspace
    count = 0
    for j in range(slots):
        if j != current and weights[j] != 0.0:
            used[count] = j
            count += 1
    for a in range(count):
        row, weight = residuals[used[a]], weights[used[a]]
        right[a] = -dot(residuals[current], row) * weight
        for b in range(a):
            product = dot(residuals[used[b]], row)
            matrix[a, b] = product * weight
            matrix[b, a] = product * weights[used[b]]
        square = dot(row, row) * weight
        matrix[a, a] = square + relative * square + floor
    solve_small(matrix, right, count)
    z_next[:] = targets[current]
    for a in range(count):
        add_multiple(z_next, right[a], targets[used[a]])


@jit_step
def type_two_step(
    residuals: Array,
    targets: Array,
    weights: Array,
    first: Array,
    mixing: Array,
    limits: tuple[Array, Array, Array],
    plain: Array,
    slot: tuple[int, int],
    z: Array,
    residual: Array,
    size_before: Array,
    options: tuple[float, float, float, float],
    forget: bool,
    sizes: Array,
    z_next: Array,
) -> None:
    """Store a point and write the next, for every system.

    Args:
        residuals: The ring's residuals, `(batch, slots, n)`; written, like all of the ring.
        targets: The ring's targets, `(batch, slots, n)`.
        weights: The ring's weights, `(batch, 1, slots)`.
        first: The norm of the first residual, `(batch, 1)`.
        mixing: `β`, `(batch, 1)`.
        limits: The growth beyond which moves are dropped, and the strict and the lenient limit,
            `(batch, 1)`; the first is written.
        plain: Boolean: the step to this point was a plain one; written for the next.
        slot: The slots of the point before and of this one.
        z: The point, `(batch, n)`.
        residual: The residual at `z`.
        size_before: Residual norms at the point before, `(batch, 1)`.
        options: The floor, the relative increase of the diagonal, the smallest length, and the growth
            beyond which a map counts as expanding, infinite without safeguard.
        forget: Drop all moves now.
        sizes: Output: the norms of residuals and points, `(2, batch, 1)`.
        z_next: Output: the next points.
    """
    residuals, targets, weights = borrowed(residuals), borrowed(targets), borrowed(weights)
    z, residual, z_next = borrowed(z), borrowed(residual), borrowed(z_next)
    limit, strict, lenient = limits
    before, now = slot
    floor, relative, tiny, expansion = options
    number = z.dtype.type
    batch, n = z.shape
    slots = residuals.shape[1]
    matrix, right = np.empty((slots, slots), z.dtype), np.empty(slots, z.dtype)
    used = np.empty(slots, np.int64)
    workspace = borrowed(used), borrowed(matrix), borrowed(right)
    for b in range(batch):
        r, point = residual[b], z[b]
        beta = mixing[b, 0]
        r_now, r_before = residuals[b, now], residuals[b, before]
        target_now, target_before = targets[b, now], targets[b, before]
        for j in range(n):
            r_now[j] = r[j]
            target_now[j] = point[j] + beta * r[j]
            r_before[j] -= r_now[j]
            target_before[j] -= target_now[j]
        size = number(sqrt(dot(r, r)))
        sizes[0, b, 0] = size
        sizes[1, b, 0] = sqrt(dot(point, point))
        length = size * first[b, 0]
        # A residual of zero gives an equation of zeros; its weight must be finite.
        weights[b, 0, before] = number(1.0) / max(length, number(tiny))
        weights[b, 0, now] = 0.0
        lost = forget
        if expansion < np.inf:
            growth = size / size_before[b, 0]
            if plain[b, 0]:
                limit[b, 0] = lenient[b, 0] if growth > expansion else strict[b, 0]
            plain[b, 0] = growth > limit[b, 0]
            lost = forget or plain[b, 0]
        if lost:
            weights[b, 0, :] = 0.0
            plain[b, 0] = True
        extrapolate(
            residuals[b], targets[b], weights[b, 0], now, floor, relative, workspace, z_next[b]
        )
