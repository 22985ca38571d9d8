"""Kepler's equation for many orbits at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...options.options import check_integer, is_number
from ...solvers.interface.golden import golden_sequence
from ..problem import Device, Root, TestProblem


@dataclass(frozen=True)
class Kepler(TestProblem):
    """`E − e sin E = M`, with one unknown for each of `count` independent orbits.

    Eccentricities grow to the largest; anomalies are spread over (0, π) by a quasi-random sequence, and `M`
    follows from `E`. From the start `min(M + e, π)` Newton's method falls monotonically.

    Attributes:
        count: Number of orbits.
        largest_eccentricity: Largest eccentricity, in [0, 1).
    """

    count: int = 100
    largest_eccentricity: float = 0.99

    name = "kepler"
    tags = ("application", "batch")
    source = "Kepler 1609; Danby 1988, section 6.6"
    standard_size = 1
    sizes = "1"
    remark = "Each orbit has one root."

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("count", self.count, 1)
        largest = self.largest_eccentricity
        if not (is_number(largest, 0) and largest < 1):
            raise ValueError(f"largest_eccentricity must be in [0, 1), got {largest!r}")

    @property
    def batch_shape(self) -> tuple[int]:
        return (self.count,)

    def _orbits(self) -> tuple[Tensor, Tensor]:
        index = torch.arange(1, self.count + 1, dtype=torch.float64).unsqueeze(1)
        eccentricity = self.largest_eccentricity * (index / self.count)
        return eccentricity, math.pi * golden_sequence(self.count, first=1).unsqueeze(1)

    def args(
        self, n: int | None = None, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> tuple[Tensor, Tensor]:
        """Eccentricities and mean anomalies, `(count, 1)` each."""
        self.size(n)
        e, anomaly = self._orbits()
        mean = anomaly - e * torch.sin(anomaly)
        return e.to(dtype=dtype, device=device), mean.to(dtype=dtype, device=device)

    def function(
        self, z: Tensor, eccentricity: Tensor | None = None, mean: Tensor | None = None
    ) -> Tensor:
        if eccentricity is None or mean is None:
            eccentricity, mean = self.args(1, z.dtype, z.device)
        return z - eccentricity * torch.sin(z) - mean

    def first(self, n: int) -> Tensor:
        e, mean = self.args(n)
        return (mean + e).clamp(max=math.pi)

    def known(self, n: int) -> list[Root]:
        return [Root(self._orbits()[1])]
