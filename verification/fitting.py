"""Fit of a straight line by the median of slopes, with a confidence interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..options.libraries import needs

with needs("scipy", "verification of gradients"):
    from scipy import stats

_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Estimate:
    """A fitted number and its interval of 99 % confidence; a format applies to all three.

    Attributes:
        value: The number.
        low: Lower end of the interval.
        high: Upper end.

    Examples:
        >>> f"{Estimate(0.5, 0.49, 0.51):.3f}"
        '0.500 (0.490 to 0.510)'
    """

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def median_slope(x: np.ndarray, y: np.ndarray) -> Estimate:
    """The slope of `y` in `x`: the median over all pairs of points, which is robust to outliers.

    Source: Sen 1968.

    Examples:
        >>> x = np.arange(8.0)
        >>> print(f"{median_slope(x, 3 * x):.1f}")
        3.0 (3.0 to 3.0)
    """
    fit = stats.theilslopes(y, x, alpha=_CONFIDENCE)
    return Estimate(float(fit.slope), float(fit.low_slope), float(fit.high_slope))
