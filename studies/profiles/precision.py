"""Work–precision curves (Hairer, Nørsett & Wanner 1993, section II.10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .steps import Array


@dataclass(frozen=True)
class Precision:
    """Cost of accuracy for each solver.

    Attributes:
        costs: Median costs, shape `(solvers, tolerances)`, NaN for a solver without common problems.
        errors: Median errors, of the same shape.
        problems: Number of problems behind each solver's medians, shape `(solvers,)`.
    """

    costs: Array
    errors: Array
    problems: NDArray[np.int64]


def work_precision(costs: Array, errors: Array, solved: NDArray[np.bool_]) -> Precision:
    """Median cost and median error of each solver at each tolerance.

    The medians of one solver are over the same problems at every tolerance: those that it solved at all of
    them. Otherwise a curve would bend where a hard problem drops out.

    Args:
        costs: Shape `(problems, solvers, tolerances)`.
        errors: Errors reached, of the same shape.
        solved: True where the cell was solved, of the same shape.

    Returns:
        A curve for each solver.

    Raises:
        ValueError: The shapes differ.

    Examples:
        >>> costs = np.array((((4.0, 9.0),), ((6.0, 11.0),)))
        >>> curve = work_precision(costs, 1 / costs**3, np.ones((2, 1, 2), dtype=bool))
        >>> tuple(curve.costs[0].tolist()), int(curve.problems[0])
        ((5.0, 10.0), 2)
    """
    if not (costs.shape == errors.shape == solved.shape) or costs.ndim != 3:
        raise ValueError(
            "expected three arrays of one shape (problems, solvers, tolerances), "
            f"got {costs.shape}, {errors.shape} and {solved.shape}"
        )
    common: NDArray[np.bool_] = np.asarray(
        solved.all(axis=2) & ~np.isnan(costs).any(axis=2) & ~np.isnan(errors).any(axis=2)
    )
    shape = costs.shape[1:]
    found_costs, found_errors = np.full(shape, np.nan), np.full(shape, np.nan)
    for s in np.flatnonzero(common.any(axis=0)):
        found_costs[s] = np.median(costs[common[:, s], s], axis=0)
        found_errors[s] = np.median(errors[common[:, s], s], axis=0)
    return Precision(found_costs, found_errors, common.sum(axis=0))
