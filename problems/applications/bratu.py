"""Bratu's problem: an exponential source, two solutions below a critical strength and none above."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...options.options import is_number
from ..grid import five_point, inverse_laplacian, is_square, side
from ..problem import TestProblem


@dataclass(frozen=True)
class Bratu(TestProblem):
    """`−Δu = λ eᵘ` on the unit square, zero at its boundary, by the five-point formula times `h²`.

    Attributes:
        strength: `λ`. Solutions come in pairs, which meet near 6.808; above there are none.
    """

    strength: float = 5.0

    name = "bratu"
    tags = ("application", "scalable")
    source = "Bratu 1914; Glowinski, Keller & Reinhart 1985"
    standard_size = 144
    argument = "strength"
    sizes = "m² with m ≥ 1"
    remark = "No solution has a closed form. The fold is at λ = 6.808 as the grid is refined."

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.strength, -torch.inf):
            raise ValueError(f"strength must be a finite number, got {self.strength!r}")

    def allows(self, n: int) -> bool:
        return is_square(n)

    def function(self, z: Tensor, strength: Tensor | float | None = None) -> Tensor:
        m = side(z.shape[-1])
        u = z.unflatten(-1, (m, m))
        source = (self.strength if strength is None else strength) / (m + 1) ** 2 * torch.exp(z)
        return five_point(u).flatten(-2) - source

    def first(self, n: int) -> Tensor:
        return torch.zeros(n, dtype=torch.float64)

    def preconditioner(
        self,
        n: int | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> Callable[[Tensor], Tensor]:
        """The inverse Laplacian: the exponential is a compact perturbation of it."""
        return inverse_laplacian(self.size(n), dtype, device)
