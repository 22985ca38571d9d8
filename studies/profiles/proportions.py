"""Intervals of a share of independent trials."""

from __future__ import annotations

import math

from ...options.libraries import needs

with needs("scipy", "an interval in a report"):
    from scipy.special import ndtri


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a share; its width is positive even if all or none of the trials succeeded.

    Args:
        successes: Number of successful trials.
        trials: Number of trials, at least 1.
        level: Nominal coverage.

    Raises:
        ValueError: A number out of its range.

    Source: Wilson 1927, Journal of the American Statistical Association 22, 209–212; recommended for few
    trials by Brown, Cai & DasGupta 2001, Statistical Science 16, 101–133, equation 4.

    Examples:
        >>> low, high = wilson(23, 23)
        >>> (round(low, 2), high)
        (0.86, 1.0)
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"expected 0 ≤ successes ≤ trials ≥ 1, got {successes} of {trials}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    z = float(ndtri((1 + level) / 2))
    share, spread = successes / trials, z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    # Without rounding the interval would reach 0 or 1 at the ends.
    low = 0.0 if successes == 0 else middle - half
    return low, 1.0 if successes == trials else middle + half
