"""Equations `−Δu = …` on the unit square, zero at its boundary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..grid import inverse_laplacian, is_square
from ..problem import Device, TestProblem


@dataclass(frozen=True)
class OnUnitSquare(TestProblem):
    """A perturbed Poisson equation on a square grid, with zero as its standard start."""

    tags = ("application", "scalable")
    sizes = "m² with m ≥ 1"

    def allows(self, n: int) -> bool:
        return is_square(n)

    def first(self, n: int) -> Tensor:
        return torch.zeros(n, dtype=torch.float64)

    def preconditioner(
        self, n: int | None = None, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> Callable[[Tensor], Tensor]:
        """The inverse Laplacian: all other terms are a compact perturbation of it."""
        return inverse_laplacian(self.size(n), dtype, device)
