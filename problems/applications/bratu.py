"""Bratu's problem: an exponential source, two solutions below a critical strength and none above."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...options.options import is_number
from ..grid import five_point, side
from .unit_square import OnUnitSquare


@dataclass(frozen=True)
class Bratu(OnUnitSquare):
    """`−Δu = λ eᵘ` on the unit square, zero at its boundary, by the five-point formula times `h²`.

    Attributes:
        strength: `λ`. There are two solutions below about 6.808, where they meet, and none above.
    """

    strength: float = 5.0

    name = "bratu"
    source = "Bratu 1914; Glowinski, Keller & Reinhart 1985"
    standard_size = 144
    argument = "strength"
    remark = "No solution has a closed form. The fold is at λ = 6.808 as the grid is refined."

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.strength, -torch.inf):
            raise ValueError(f"strength must be a finite number, got {self.strength!r}")

    def function(self, z: Tensor, strength: Tensor | float | None = None) -> Tensor:
        m = side(z.shape[-1])
        u = z.unflatten(-1, (m, m))
        source = (self.strength if strength is None else strength) / (m + 1) ** 2 * torch.exp(z)
        return five_point(u).flatten(-2) - source
