"""Shares and statistics of solvers, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..profiles import Interval, Statistic, bootstrap, mean, performance_profile, wilson
from .cells import Cells, Floats, Slice
from .tables import Bounded


@dataclass(frozen=True)
class Resampling:
    """Settings of the bootstrap; problems are drawn with replacement, together with their seeds."""

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95


def cheapest_shares(cells: Cells, part: Slice, name: str) -> tuple[Floats, int]:
    """Share of problems on which each solver is the cheapest, and the number of problems with known costs."""
    costs, known = cells.costs(part, name)
    if not known.any():
        return np.full(len(cells.solvers), np.nan), 0
    return np.array([float(profile(1.0)) for profile in performance_profile(costs)]), len(costs)


def resample(cells: Cells, part: Slice, statistic: Statistic, how: Resampling) -> Interval:
    """A statistic of instances, with problems resampled."""
    distinct, owner = np.unique(cells.problem[part.instances], return_inverse=True)
    return bootstrap(
        lambda counts: statistic(counts[:, owner]),
        len(distinct),
        level=how.level,
        resamples=how.resamples,
        seed=how.seed,
    )


def shares_solved(cells: Cells, part: Slice, hits: Floats, how: Resampling) -> list[Bounded]:
    """Share of its column of `hits` that each solver solves, without NaN entries.

    The interval is the score interval if every problem occurs once. Several instances of a problem are not
    independent trials, and get the interval of the bootstrap. If all or none are solved, resampling gives
    the same share always; then the score interval of as many trials as problems is used.
    """
    owner = cells.problem[part.instances]
    resampled = resample(cells, part, mean(hits), how)
    shares = []
    for k, run in enumerate(~np.isnan(hits.T)):
        problems, instances = len(np.unique(owner[run])), int(run.sum())
        share = bounded(resampled, k)
        if instances and (problems == instances or share.low == share.high):
            low, high = wilson(round(share.value * problems), problems, how.level)
            share = Bounded(share.value, low, high)
        shares.append(share)
    return shares


def bounded(interval: Interval, k: int) -> Bounded:
    """The estimate of one solver with its bounds."""
    return Bounded(float(interval.estimate[k]), float(interval.low[k]), float(interval.high[k]))
