"""Bratu's problem in one dimension, whose discrete solutions are an explicit recurrence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...options.options import is_positive
from ..problem import Root
from ..reference import Array, zero_between
from .problem import CurveProblem

_HIGHEST = 60.0


@dataclass(frozen=True)
class BratuOnALine(CurveProblem):
    """`u″ + λ eᵘ = 0`, `u(0) = u(1) = 0`, by second differences times `−h²`.

    For `v = u + log λ` the equation has no parameter: from a height `v` in the middle a recurrence gives
    all nodes up to the boundary, where `v = log λ`. So `λ` is an explicit function of the height, and its
    maximum is the fold.

    Attributes:
        strength: `λ`. There are two solutions below the fold, at 3.5138 as the grid is refined, and none
            above.
    """

    strength: float = 2.0

    name = "bratu-line"
    source = "Bratu 1914; Ascher, Mattheij & Russell 1995, example 3.2"
    standard_size = 99
    sizes = "1, 2, …"
    argument = "strength"
    remark = "All roots are given: two below the fold, none above."

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_positive(self.strength):
            raise ValueError(f"strength must be a number > 0, got {self.strength!r}")

    def allows(self, n: int) -> bool:
        return n >= 1

    def function(self, z: Tensor, strength: Tensor | float | None = None) -> Tensor:
        h = 1 / (z.shape[-1] + 1)
        rate = self.strength if strength is None else strength
        neighbours = pad(z[..., :-1], (1, 0)) + pad(z[..., 1:], (0, 1))
        return 2 * z - neighbours - rate * h**2 * torch.exp(z)

    def first(self, n: int) -> Tensor:
        return torch.zeros(n, dtype=torch.float64)

    def known(self, n: int) -> list[Root]:
        top, target = self._top(n), math.log(self.strength)
        if self._march(n, top)[0][-1] <= target:
            return []

        def height(a: float) -> float:
            return float(self._march(n, a)[0][-1]) - target

        heights = [
            zero_between(height, *pair, xtol=1e-15)
            for pair in ((-_HIGHEST + target, top), (top, _HIGHEST))
        ]
        return [Root(torch.from_numpy(self._profile(n, a))) for a in heights]

    def folds(self, n: int | None = None) -> tuple[float, ...]:
        n = self.size(n)
        return (math.exp(self._march(n, self._top(n))[0][-1]),)

    def _top(self, n: int) -> float:
        """The height in the middle at which `λ` is largest."""
        return zero_between(
            lambda a: float(self._march(n, a)[1][-1]), -_HIGHEST, _HIGHEST, xtol=1e-14, rtol=1e-14
        )

    def _profile(self, n: int, a: float) -> Array:
        half = self._march(n, a)[0]
        u = half[:-1] - half[-1]
        return np.concatenate((u[::-1], u if n % 2 == 0 else u[1:]))

    @staticmethod
    def _march(n: int, a: float) -> tuple[Array, Array]:
        """`v` from the middle to the boundary, and its derivative with respect to the height `a`.

        A step adds to the slope `s`, so that differences of large numbers do not lose the small ones.
        """
        square = (1 / (n + 1)) ** 2
        # With an odd number of nodes one is in the middle, and half of its source goes to either side.
        source = square * math.exp(a)
        part = 0.5 if n % 2 else 1.0
        v, w, s, t = a, 1.0, -part * source, -part * source
        values, slopes = [v], [w]
        for _ in range((n + 1) // 2 if n % 2 else n // 2):
            v, w = v + s, w + t
            values.append(v)
            slopes.append(w)
            source = square * math.exp(min(v, 700.0))
            s, t = s - source, t - source * w
        return np.array(values), np.array(slopes)
