"""Performance profiles (Dolan & Moré 2002)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .steps import Array, Steps, checked, cumulative_share


def ratios(costs: Array) -> Array:
    """Cost of each solver relative to the cheapest one on that problem.

    `r[p, s] = t[p, s] / min over s of t[p, s]` (Dolan & Moré 2002, section 2), `inf` for a failure.

    Args:
        costs: Positive, shape `(problems, solvers)`, `inf` for failures.

    Returns:
        Shape `(problems, solvers)`, at least 1. An unsolved problem is `inf` throughout.

    Raises:
        ValueError: The array has another shape or other values.

    Examples:
        >>> tuple(ratios(np.array(((10.0, 20.0, np.inf),)))[0].tolist())
        (1.0, 2.0, inf)
    """
    costs = checked(costs, positive=True)
    best = costs.min(axis=1, keepdims=True)
    return np.divide(costs, best, out=np.full_like(costs, np.inf), where=np.isfinite(costs))


def performance_profile(costs: Array, among: Sequence[int] | None = None) -> tuple[Steps, ...]:
    """Share of problems that each solver solves at a cost within a factor `τ` of the best.

    `ρ_s(τ) = |{p: r[p, s] ≤ τ}| / |P|` (Dolan & Moré 2002, section 2), of all problems, unsolved
    ones included. `ρ_s(1)` is the share on which `s` is the best, and ties count for each. The limit is the
    share that it solves.

    With more than two solvers a profile ranks the best one only. The order of two others may depend on the
    remaining solvers (Gould & Scott 2016). Compare two solvers by a profile of those two: `among`.

    Args:
        costs: Positive, shape `(problems, solvers)`, `inf` for failures.
        among: Columns of the solvers to compare; the best is taken among them. `None` for all.

    Returns:
        A step function of `τ ≥ 1` for each solver, in the order of `among`.

    Raises:
        ValueError: The array has another shape or other values.

    Examples:
        >>> costs = np.array(((10.0, 20.0), (8.0, 8.0), (np.inf, 5.0)))
        >>> first, second = performance_profile(costs)
        >>> tuple(round(float(share), 3) for share in (first(1), first(9), second(1), second(2)))
        (0.667, 0.667, 0.667, 1.0)
    """
    if among is not None:
        costs = np.asarray(costs)[:, list(among)]
    return cumulative_share(ratios(costs))


def head_to_head(costs: Array) -> Array:
    """Share of problems that one solver solves at no more than the cost of another, for each pair.

    Entry `[a, b]` is `ρ_a(1)` of the profile of these two alone (Gould & Scott 2016).

    Args:
        costs: Positive, shape `(problems, solvers)`, `inf` for failures.

    Returns:
        Shape `(solvers, solvers)`; on the diagonal the share that is solved.

    Raises:
        ValueError: The array has another shape or other values.

    Examples:
        >>> shares = head_to_head(np.array(((10.0, 20.0), (8.0, 8.0), (np.inf, 5.0), (np.inf, np.inf))))
        >>> tuple(shares[0].tolist()), tuple(shares[1].tolist())
        ((0.5, 0.5), (0.5, 0.75))
    """
    costs = checked(costs, positive=True)
    solved = np.isfinite(costs)
    rows = [(solved[:, [a]] & (costs[:, [a]] <= costs)).mean(axis=0) for a in range(costs.shape[1])]
    return np.asarray(rows)
