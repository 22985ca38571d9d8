"""Intervals of a share of independent trials."""

from __future__ import annotations

import math

from scipy.special import ndtri


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a share, which has a width even where all or nothing succeeded.

    Args:
        successes: How many of the trials succeeded.
        trials: How many there were, at least 1.
        level: The share of such intervals that are to contain the truth.

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
    # At the ends the interval reaches 0 or 1, but for rounding.
    low = 0.0 if successes == 0 else middle - half
    return low, 1.0 if successes == trials else middle + half
