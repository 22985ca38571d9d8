"""A stirred reactor with an exothermic reaction: it ignites, and goes out, at two folds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...options.options import is_positive
from ..problem import Root
from ..reference import zero_between
from .problem import CurveProblem


@dataclass(frozen=True)
class StirredReactor(CurveProblem):
    """`z = Da (1 − z) exp(B z / (1 + B z / γ))` for the conversion `z` of a first-order reaction.

    `Da` as a function of `z` is explicit, and its derivative vanishes where `(1 + B z / γ)² = B z (1 − z)`.

    Attributes:
        damkohler: `Da`, reaction rate times residence time.
        heat: `B`, the adiabatic rise of temperature; folds exist where it is large enough.
        activation: `γ`, the activation energy.
    """

    damkohler: float = 0.01
    heat: float = 14.0
    activation: float = 20.0

    name = "stirred-reactor"
    source = "Uppal, Ray & Poore 1974 (adiabatic)"
    standard_size = 1
    sizes = "1"
    argument = "damkohler"
    remark = "All roots are given: three between the folds, which are the roots of a quadratic, else one."

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("damkohler", "heat", "activation"):
            if not is_positive(getattr(self, name)):
                raise ValueError(f"{name} must be a number > 0, got {getattr(self, name)!r}")

    def function(
        self,
        z: Tensor,
        damkohler: Tensor | float | None = None,
        heat: Tensor | float | None = None,
        activation: Tensor | float | None = None,
    ) -> Tensor:
        rate = self.damkohler if damkohler is None else damkohler
        B = self.heat if heat is None else heat
        gamma = self.activation if activation is None else activation
        return z - rate * (1 - z) * torch.exp(B * z / (1 + B * z / gamma))

    def first(self, n: int) -> list[float]:
        return [0.5]

    def known(self, n: int) -> list[Root]:
        ends = (1e-300, *self._turns(), 1 - 2.0**-53)
        target = math.log(self.damkohler)
        heights = [self._logarithm(z) - target for z in ends]
        pairs = list(zip(ends, ends[1:], heights, heights[1:], strict=False))
        return [
            Root.of([zero_between(lambda z: self._logarithm(z) - target, low, high)])
            for low, high, one, other in pairs
            if one * other < 0
        ]

    def folds(self, n: int | None = None) -> tuple[float, ...]:
        self.size(n)
        return tuple(math.exp(self._logarithm(z)) for z in self._turns())

    def _turns(self) -> tuple[float, ...]:
        """The conversions at the folds, ascending; none where the curve does not turn."""
        B, gamma = self.heat, self.activation
        a, b = (B / gamma) ** 2 + B, 2 * B / gamma - B
        square = b * b - 4 * a
        if square <= 0 or b >= 0:
            return ()
        large = (-b + math.sqrt(square)) / (2 * a)
        return (1 / (a * large), large)

    def _logarithm(self, z: float) -> float:
        """`log Da` at a conversion."""
        return math.log(z) - math.log1p(-z) - self.heat * z / (1 + self.heat * z / self.activation)
