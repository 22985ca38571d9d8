"""Shares of problems as step functions, common to performance and data profiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """A share of problems that rises in steps, continuous from the right.

    Attributes:
        jumps: Positions of the steps, ascending, shape `(k,)`.
        shares: Its value from each jump on, shape `(k,)`; it is 0 before the first.

    Examples:
        >>> steps = Steps(np.array((1.0, 4.0)), np.array((0.5, 1.0)))
        >>> tuple(float(steps(x)) for x in (0.9, 1.0, 3.9, 4.0))
        (0.0, 0.5, 0.5, 1.0)
    """

    jumps: Array
    shares: Array

    def __call__(self, x: float | Array) -> Array:
        """The share at `x`, of any shape."""
        behind = np.searchsorted(self.jumps, x, side="right")
        return np.concatenate(([0.0], self.shares))[behind]

    @property
    def limit(self) -> float:
        """The final share: that of the problems solved."""
        return float(self.shares[-1]) if len(self.shares) else 0.0

    def thinned(self, most: int) -> Steps:
        """The same with at most `most` jumps, the first and the last among them.

        Between kept jumps the share is too small, by at most the rise of the jumps left out.
        """
        if len(self.jumps) <= most:
            return self
        kept = np.unique(np.linspace(0, len(self.jumps) - 1, most).round().astype(int))
        return Steps(self.jumps[kept], self.shares[kept])


def cumulative_share(values: Array) -> tuple[Steps, ...]:
    """Share of all problems with a value of at most `x`, as a function of `x`, for each solver.

    Args:
        values: Shape `(problems, solvers)`; `inf` if there is none; NaN is not allowed.

    Returns:
        A step function for each solver.

    Examples:
        >>> fast, slow = cumulative_share(np.array(((1.0, 2.0), (1.0, np.inf))))
        >>> fast.limit, slow.limit
        (1.0, 0.5)
    """
    values = checked(values)
    problems = values.shape[0]
    found = []
    for column in values.T:
        jumps, counts = np.unique(column[np.isfinite(column)], return_counts=True)
        found.append(Steps(jumps, np.cumsum(counts) / problems))
    return tuple(found)


def checked(values: Array, *, positive: bool = False) -> Array:
    """`values` as floats.

    Raises:
        ValueError: They are not a matrix with at least one problem, are NaN or, if `positive`, not positive.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] == 0:
        raise ValueError(
            f"expected an array of shape (problems, solvers) with a problem, got shape {values.shape}"
        )
    if np.isnan(values).any():
        raise ValueError("values hold NaN: give a failure as inf, leave out what was not run")
    if positive and not (values > 0).all():
        raise ValueError(f"costs must be positive, got {values.min()}")
    return values
