"""Lengths along a curve, in units of its own: one for the unknown, one for the parameter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """`‖(v, μ)‖² = ‖v‖² / (n s²) + μ² / p²`, so that a step does not depend on units or on `n`.

    Attributes:
        weights: The factors on the squares of the entries, `(n + 1,)`.

    Examples:
        >>> metric = Metric.of(4, 2.0, 10.0, torch.zeros(1))
        >>> round(metric.length(torch.tensor([2.0, 2.0, 2.0, 2.0, 0.0])).item(), 6)
        1.0
    """

    weights: Tensor

    @staticmethod
    def of(n: int, unknown: float, parameter: float, like: Tensor) -> Metric:
        """The metric of units of the unknown, as a root mean square, and of the parameter."""
        weights = like.new_full((n + 1,), 1 / (n * unknown**2))
        weights[-1] = 1 / parameter**2
        return Metric(weights)

    @property
    def scales(self) -> Tensor:
        """The change of each entry that has the length one, `(n + 1,)`."""
        return self.weights.rsqrt()

    @property
    def units(self) -> tuple[float, float]:
        """The units of the unknown, as a root mean square, and of the parameter."""
        n = len(self.weights) - 1
        return float(self.scales[0]) / n**0.5, float(self.scales[-1])

    def grown(self, unknown: float) -> Metric:
        """The metric with another unit of the unknown."""
        return Metric.of(len(self.weights) - 1, unknown, self.units[1], self.weights)

    def row(self, tangent: Tensor) -> Tensor:
        """The row that is orthogonal to the plane across `tangent`."""
        return self.weights * tangent

    def inner(self, a: Tensor, b: Tensor) -> float:
        """The inner product."""
        return float((self.weights * a * b).sum())

    def length(self, a: Tensor) -> Tensor:
        """The length."""
        return torch.sqrt((self.weights * a * a).sum())

    def unit(self, a: Tensor) -> Tensor:
        """`a` divided by its length."""
        return a / self.length(a)


def root_mean_square(w: Tensor) -> Tensor:
    """The root mean square of the unknown in `w = (z, λ)`."""
    return w[:-1].square().mean().sqrt()
