"""Compiled step of Broyden's good method: one pass over each system's updates.

It computes the same as `Broyden.step`, in the same order. There each operation runs over all systems; here
all operations run over one system while its updates are in the cache.
"""

from __future__ import annotations

from math import isfinite, sqrt

import numpy as np

from .numba_code import Array, borrowed
from .numba_rows import add_multiple, dot, jit_step


@jit_step
def good_step(
    before: Array,
    numbers: Array,
    first_length: Array,
    updates: Array,
    used: int,
    taken: Array,
    trial: Array,
    residual: Array,
    allowance: float,
    smallest_curvature: float,
    after: Array,
    numbers_after: Array,
) -> None:
    """Update the inverse from a trial, and accept or reject the trial, for every system.

    Args:
        before: Iterates, residuals and directions, `(3, batch, 1, n)`.
        numbers: Sizes, lengths and norms of the iterates, `(3, batch, 1, 1)`.
        first_length: `t`, `(batch, 1, 1)`.
        updates: `(batch, capacity, 2, n)`; row `used` is written.
        used: Updates in use.
        taken: The directions of the trials, `(batch, 1, n)`: the ones in `before`, or their values from
            before a rank reduction.
        trial: The trial points, `z + length · taken`.
        residual: The residuals at `trial`.
        allowance: The factor by which the residual norm may grow; infinite to accept any trial.
        smallest_curvature: See `Broyden`.
        after: Output: the new iterates, residuals and directions.
        numbers_after: Output: the new numbers.
    """
    before, after, updates = borrowed(before), borrowed(after), borrowed(updates)
    taken, trial, residual = borrowed(taken), borrowed(trial), borrowed(residual)
    number = before.dtype.type
    _, batch, _, n = before.shape
    workspace = np.empty((2, n), before.dtype)
    rows = borrowed(workspace)
    s, next_direction = rows[0], rows[1]
    for b in range(batch):
        r, d = residual[b, 0], before[2, b, 0]
        t, length = first_length[b, 0, 0], numbers[1, b, 0, 0]
        u, v = updates[b, used, 0], updates[b, used, 1]
        for j in range(n):
            s[j] = length * taken[b, 0, j]
            next_direction[j] = t * r[j]
            v[j] = t * s[j]
        for i in range(used):
            left, right = updates[b, i, 0], updates[b, i, 1]
            add_multiple(next_direction, -dot(right, r), left)
            add_multiple(v, -dot(left, s), right)
        for j in range(n):
            u[j] = next_direction[j] - d[j]
        denominator = dot(u, s)
        regular = abs(denominator) > smallest_curvature * dot(s, s) and isfinite(denominator)
        for j in range(n):
            u[j] = (s[j] + u[j]) / denominator if regular else number(0.0)
            # A trial that is not finite gives no update.
            u[j] = u[j] if isfinite(u[j]) else number(0.0)
        size = number(sqrt(dot(r, r)))
        z_new, r_new, d_new = after[0, b, 0], after[1, b, 0], after[2, b, 0]
        if size <= allowance * numbers[0, b, 0, 0] or allowance == np.inf:
            length = number(1.0)
            z_new[:], r_new[:], d_new[:] = trial[b, 0], r, next_direction
        else:
            size, length = numbers[0, b, 0, 0], number(0.5) * length
            z_new[:], r_new[:], d_new[:] = before[0, b, 0], before[1, b, 0], d
        add_multiple(d_new, -dot(d_new, s), u)
        numbers_after[0, b, 0, 0] = size
        numbers_after[1, b, 0, 0] = length
        numbers_after[2, b, 0, 0] = sqrt(dot(z_new, z_new))
