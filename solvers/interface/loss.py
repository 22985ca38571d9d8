"""Losses of least squares: a function `ρ` of each squared residual, which bounds the weight of outliers.

The objective is `½ Σ s² ρ((r / s)²)` with the scale `s`: the residual from which on a loss differs from the
square. All losses have `ρ(0) = 0` and `ρ'(0) = 1`: small residuals count as in ordinary least squares.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ...options.options import Options, is_positive


@dataclass(frozen=True)
class Loss(Options, ABC):
    """Loss of each residual in least squares.

    Attributes:
        scale: The size of a residual from which on it counts less than its square.

    Raises:
        ValueError: `scale` is not a number above zero.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not is_positive(self.scale):
            raise ValueError(f"scale must be a number > 0, got {self.scale!r}")

    @abstractmethod
    def rho(self, s: Tensor) -> Tensor:
        """`ρ` of squared residuals in units of the scale."""

    @abstractmethod
    def weight(self, s: Tensor) -> Tensor:
        """`ρ'`, the weight of a residual beside its square; positive."""

    def of(self, residual: Tensor) -> Tensor:
        """The loss of each residual, twice its part of the objective."""
        return self.scale**2 * self.rho((residual / self.scale) ** 2)

    def weight_of(self, residual: Tensor) -> Tensor:
        """The weight of each residual."""
        return self.weight((residual / self.scale) ** 2)


@dataclass(frozen=True)
class Huber(Loss):
    """The square of small residuals, a multiple of the absolute value of large ones.

    Its second derivative jumps where a residual equals `scale`.

    Source: Huber 1964.

    Examples:
        >>> import torch
        >>> Huber(scale=1.0).of(torch.tensor([0.5, 3.0])).tolist()
        [0.25, 5.0]
    """

    def rho(self, s: Tensor) -> Tensor:
        # The root never sees a zero, whose derivative is infinite.
        return torch.where(s <= 1, s, 2 * s.clamp(min=1).sqrt() - 1)

    def weight(self, s: Tensor) -> Tensor:
        return s.clamp(min=1).rsqrt()


@dataclass(frozen=True)
class SoftL1(Loss):
    """A smooth relative of Huber's loss: `2 (√(1 + s) − 1)`.

    Source: Charbonnier, Blanc-Féraud, Aubert & Barlaud 1997.

    Examples:
        >>> import torch
        >>> SoftL1(scale=2.0).of(torch.tensor([0.0])).tolist()
        [0.0]
    """

    def rho(self, s: Tensor) -> Tensor:
        return 2 * s / ((1 + s).sqrt() + 1)

    def weight(self, s: Tensor) -> Tensor:
        return (1 + s).rsqrt()


@dataclass(frozen=True)
class Cauchy(Loss):
    """`log(1 + s)`: the likelihood of residuals with heavy tails. It is not convex.

    Source: Holland & Welsch 1977.

    Examples:
        >>> import torch
        >>> round(Cauchy().of(torch.tensor([1.0])).item(), 4)
        0.6931
    """

    def rho(self, s: Tensor) -> Tensor:
        return torch.log1p(s)

    def weight(self, s: Tensor) -> Tensor:
        return 1 / (1 + s)


@dataclass(frozen=True)
class Arctan(Loss):
    """`arctan(s)`: an outlier counts at most `π / 2` squares of the scale. It is not convex.

    Source: Virtanen et al. 2020 (`scipy.optimize.least_squares`).

    Examples:
        >>> import torch
        >>> round(Arctan().of(torch.tensor([1.0])).item(), 4)
        0.7854
    """

    def rho(self, s: Tensor) -> Tensor:
        return torch.arctan(s)

    def weight(self, s: Tensor) -> Tensor:
        return 1 / (1 + s * s)
