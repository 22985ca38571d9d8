"""Curves of medians, thinned to the number of problems that a reader can choose from."""

from __future__ import annotations

import numpy as np

from ..cells import Floats, Indices
from ..figures import Curve

MOST_PROBLEMS = 40
# Smallest residual or error that a logarithmic axis shows; it cannot show zero.
LEAST_SHOWN = 1e-18


def sampled(problems: Indices) -> list[int]:
    """At most `MOST_PROBLEMS` of the problems, evenly over their order."""
    distinct = np.unique(problems)
    if len(distinct) > MOST_PROBLEMS:
        places = np.linspace(0, len(distinct) - 1, MOST_PROBLEMS).round().astype(int)
        distinct = distinct[places]
    return [int(problem) for problem in distinct]


def median_of_known(values: Floats) -> Floats:
    """Median of the known entries of each column; NaN for a column without any."""
    found = np.full(values.shape[1], np.nan)
    known = np.isfinite(values)
    for s in np.flatnonzero(known.any(axis=0)):
        found[s] = np.median(values[known[:, s], s])
    return found


def known_points(x: Floats, heights: Floats) -> tuple[Curve, ...]:
    """A curve of known points for each solver, a column of `heights` over `x`."""
    return tuple(
        Curve(s, x[known], heights[known, s])
        for s in range(heights.shape[1])
        if (known := np.isfinite(heights[:, s])).any()
    )
