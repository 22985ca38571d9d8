"""Bootstrap intervals over problems (Efron 1979; Efron 1987 for the corrected ones)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...options.libraries import needs
from .steps import Array

with needs("scipy", "an interval in a report"):
    from scipy.special import ndtr, ndtri

Statistic = Callable[[Array], Array]


@dataclass(frozen=True)
class Interval:
    """Estimates with the bounds of their intervals, each of the shape of the statistic.

    Attributes:
        estimate: The statistic of the problems themselves.
        low: Lower bounds, NaN where more than one resample in twenty leaves the statistic undefined.
        high: Upper bounds, likewise.
    """

    estimate: Array
    low: Array
    high: Array


def bootstrap(
    statistic: Statistic,
    problems: int,
    *,
    level: float = 0.95,
    method: Literal["percentile", "bca"] = "bca",
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Intervals of a statistic over problems, seen as a sample of all problems of their kind.

    Problems are drawn with replacement; the results of all solvers on a problem stay together. The
    statistic receives how often each problem is in a sample, as weights.

    Args:
        statistic: Function from counts of shape `(samples, problems)` to values of shape
            `(samples, ...)`; see `mean` and `median`. It is NaN where undefined.
        problems: Their number.
        level: Nominal coverage.
        method: `"percentile"`, or `"bca"`: corrected for bias and for skewness by the jackknife (Efron 1987;
            Efron & Tibshirani 1993, equations 14.9 to 14.15).
        resamples: Samples that are drawn.
        seed: Seed of the draw.

    Returns:
        Estimate and bounds. With a single problem the bounds are NaN.

    Raises:
        ValueError: A number out of its range.

    Examples:
        >>> solved = np.array((1.0, 1, 1, 0, 1, 1, 0, 1, 1, 1))
        >>> interval = bootstrap(mean(solved[:, None]), 10)
        >>> float(interval.estimate[0]), bool(interval.low[0] < 0.8 < interval.high[0])
        (0.8, True)
    """
    if problems < 1 or resamples < 1:
        raise ValueError(
            f"expected at least one problem and resample, got {problems} and {resamples}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if method not in ("percentile", "bca"):
        raise ValueError(f"method must be 'percentile' or 'bca', got {method!r}")
    estimate = statistic(np.ones((1, problems)))[0]
    if problems == 1:
        unknown = np.full_like(estimate, np.nan)
        return Interval(estimate, unknown, unknown)
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(problems, np.full(problems, 1 / problems), size=resamples)
    drawn = statistic(counts.astype(np.float64))
    tail = (1 - level) / 2
    if method == "percentile":
        low, high = np.full_like(estimate, tail), np.full_like(estimate, 1 - tail)
    else:
        low, high = _corrected(statistic, problems, estimate, drawn, tail)
    defined = (~np.isnan(drawn)).mean(axis=0) >= 0.95
    return Interval(
        estimate,
        np.where(defined, _quantile(drawn, low), np.nan),
        np.where(defined, _quantile(drawn, high), np.nan),
    )


def _corrected(
    statistic: Statistic, problems: int, estimate: Array, drawn: Array, tail: float
) -> tuple[Array, Array]:
    """Corrected levels of the quantiles, in place of `tail` and `1 − tail`."""
    with np.errstate(invalid="ignore", divide="ignore"):
        # Ties count half, as if the statistic were smoothed at its atoms.
        below = np.mean(drawn < estimate, axis=0) + np.mean(drawn == estimate, axis=0) / 2
        bias = ndtri(below)
        left_out = statistic(np.ones((problems, problems)) - np.eye(problems))
        pulls = np.mean(left_out, axis=0) - left_out
        spread = np.sum(pulls**2, axis=0) ** 1.5
        acceleration = np.where(spread > 0, np.sum(pulls**3, axis=0) / (6 * spread), 0.0)
        levels = []
        for quantile in (ndtri(tail), ndtri(1 - tail)):
            shifted = bias + quantile
            level = ndtr(bias + shifted / (1 - acceleration * shifted))
            # The plain percentile, if all resamples are on one side or the jackknife has no value.
            levels.append(np.where(np.isfinite(level) & np.isfinite(bias), level, ndtr(quantile)))
    return levels[0], levels[1]


def _quantile(drawn: Array, levels: Array) -> Array:
    """The quantile of each statistic at its own level, without NaN entries; `inf` is the largest value."""
    ordered = np.sort(drawn, axis=0)  # NaN last.
    count = np.sum(~np.isnan(drawn), axis=0)
    place = np.clip(np.ceil(levels * count) - 1, 0, np.maximum(count - 1, 0)).astype(int)
    return np.take_along_axis(ordered, place[None], axis=0)[0]


def mean(values: Array) -> Statistic:
    """Statistic: the mean of each column of `values`, shape `(problems, k)`, without NaN entries.

    Examples:
        >>> float(mean(np.array(((1.0,), (3.0,))))(np.array(((1.0, 3.0),)))[0, 0])
        2.5
    """
    present = ~np.isnan(values)
    filled = np.where(present, values, 0.0)

    def statistic(counts: Array) -> Array:
        weight = counts @ present
        return np.divide(
            counts @ filled, weight, out=np.full(weight.shape, np.nan), where=weight > 0
        )

    return statistic


def median(values: Array) -> Statistic:
    """Statistic: the median of each column of `values`, shape `(problems, k)`, without NaN entries.

    For an even number of values it is the mean of the two in the middle, which is `inf` if one of them is.

    Examples:
        >>> statistic = median(np.array(((1.0,), (3.0,), (9.0,))))
        >>> tuple(statistic(np.array(((1.0, 1, 1), (2, 1, 1), (2, 2, 0))))[:, 0].tolist())
        (3.0, 2.0, 2.0)
    """
    columns = []
    for column in values.T:
        kept = np.flatnonzero(~np.isnan(column))
        kept = kept[np.argsort(column[kept], kind="stable")]
        columns.append((kept, column[kept]))

    def statistic(counts: Array) -> Array:
        found = np.full((len(counts), len(columns)), np.nan)
        single = counts.astype(np.float32)  # Exact for counts, and half the memory.
        for k, (kept, ordered) in enumerate(columns):
            if len(kept) == 0:
                continue
            blocks, totals = _blocks(single, kept)
            lower = ordered[_first_to_reach(single, kept, blocks, np.ceil(totals / 2))]
            upper = ordered[_first_to_reach(single, kept, blocks, np.floor(totals / 2) + 1)]
            found[:, k] = np.where(totals > 0, (lower + upper) / 2, np.nan)
        return found

    return statistic


_BLOCK = 32


def _blocks(counts: NDArray[np.float32], kept: NDArray[np.intp]) -> tuple[Any, Any]:
    """Running sums of the counts after each block of `kept`, shape `(samples, blocks)`, and their totals."""
    within = np.zeros((counts.shape[1], -(-len(kept) // _BLOCK)), dtype=np.float32)
    within[kept, np.arange(len(kept)) // _BLOCK] = 1
    sums = np.cumsum(counts @ within, axis=1)
    return sums, sums[:, -1]


def _first_to_reach(
    counts: NDArray[np.float32], kept: NDArray[np.intp], blocks: Any, goals: Any
) -> NDArray[np.intp]:
    """Positions in `kept` at which the running sum of each sample first reaches its goal; else the last."""
    block = np.minimum((blocks < goals[:, None]).sum(axis=1), blocks.shape[1] - 1)
    samples = np.arange(len(counts))
    before = np.where(block > 0, blocks[samples, block - 1], 0)
    places = block[:, None] * _BLOCK + np.arange(_BLOCK)
    entries = counts[samples[:, None], kept[np.minimum(places, len(kept) - 1)]]
    reached = before[:, None] + np.cumsum(entries, axis=1)
    return np.minimum(places[:, 0] + (reached < goals[:, None]).sum(axis=1), len(kept) - 1)
