"""Convergence traces: the residual against evaluations."""

from __future__ import annotations

import numpy as np

from .steps import Array


def thin_trace(evaluations: Array, residuals: Array, most: int) -> tuple[Array, Array]:
    """A trace of falling residuals, thinned to at most `most` points with the same shape.

    The first and the last point stay; of those between, the ones at which the logarithm of the residual
    first passes equally spaced levels.

    Args:
        evaluations: Ascending, shape `(entries,)`.
        residuals: Descending and not negative, shape `(entries,)`.
        most: Largest number of points, at least 2.

    Returns:
        The evaluations and residuals kept.

    Raises:
        ValueError: `most` is less than 2.

    Examples:
        >>> kept, _ = thin_trace(np.arange(1.0, 101), np.logspace(0, -10, 100), 11)
        >>> len(kept), float(kept[0]), float(kept[-1])
        (11, 1.0, 100.0)
    """
    if most < 2:
        raise ValueError(f"most must be at least 2, got {most}")
    if len(residuals) <= most:
        return evaluations, residuals
    tiny = np.finfo(np.float64).tiny
    depth = -np.log(np.maximum(residuals, tiny))
    depth = np.maximum.accumulate(np.nan_to_num(depth, nan=depth[0], neginf=-1e3))
    levels = np.linspace(depth[0], depth[-1], most)[1:-1]
    kept = np.unique(np.concatenate(([0], np.searchsorted(depth, levels), [len(depth) - 1])))
    return evaluations[kept], residuals[kept]
