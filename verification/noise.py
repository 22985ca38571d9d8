"""Noise of a computed function, estimated from samples at equal spacing.

Differences of order `k` of a smooth function fall like the `k`-th power of the spacing; those of noise
of standard deviation `σ` have the variance `σ² (2k)! / (k!)²`. So `sqrt((k!)² / (2k)! · mean(Δᵏ)²)` becomes
independent of `k` at some level of the difference table; this value is the noise.

Source: Moré & Wild 2011, Estimating computational noise, algorithm ECnoise.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Noise:
    """Standard deviations of the noise of some functions.

    Attributes:
        level: One for each column of the samples.
        found: True if the difference table shows it; else `level` is only an upper bound.

    Examples:
        >>> import numpy as np
        >>> t = np.arange(9.0)
        >>> rounding = 1e-9 * np.array([1, -1, -1, 1, -1, 1, 1, -1, 1])
        >>> noise = Noise.of((1e-3 * t + rounding)[:, None])
        >>> bool(noise.found[0]), bool(3e-10 < noise.level[0] < 3e-9)
        (True, True)
    """

    level: Array
    found: Array

    @staticmethod
    def of(samples: Array) -> Noise:
        """The noise of functions sampled at equal spacing.

        Args:
            samples: `(points, functions)`, at least six points.
        """
        points, functions = samples.shape
        if points < 6:
            raise ValueError(f"samples must have at least 6 points, got {points}")
        levels, changes = [], []
        differences = samples
        for k in range(1, points):
            differences = np.diff(differences, axis=0)
            gamma = factorial(k) ** 2 / factorial(2 * k)
            levels.append(np.sqrt(gamma * np.mean(differences**2, axis=0)))
            changes.append((differences.min(axis=0) < 0) & (differences.max(axis=0) > 0))
        sigma, signs = np.array(levels), np.array(changes)
        level, found = sigma[-1].copy(), np.zeros(functions, bool)
        for k in range(points - 3):
            run = sigma[k : k + 3]
            # At a wide spacing the levels of a smooth function fall slowly but steadily.
            stays = (run.max(axis=0) <= 4 * run.min(axis=0)) & (run[2] >= 0.5 * run[0])
            agree = stays & signs[k] & ~found
            level[agree], found[agree] = sigma[k][agree], True
        return Noise(level, found)
