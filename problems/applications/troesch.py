"""Troesch's two-point boundary-value problem."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...options.options import is_positive
from ..problem import Root, TestProblem
from ..reference import Array, banded_newton


@dataclass(frozen=True)
class Troesch(TestProblem):
    """`y″ = λ sinh λy`, `y(0) = 0`, `y(1) = 1`, by second differences times `h²`; it has a boundary layer.

    Attributes:
        steepness: `λ`; the slope at the end is nearly `e^{λ/2}`.
    """

    steepness: float = 10.0

    name = "troesch"
    tags = ("application", "scalable")
    source = "Troesch 1976; Scott 1975 (solution)"
    standard_size = 99
    sizes = "1, 2, …"
    remark = "The root is the only one: the Laplacian plus an increasing function."

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_positive(self.steepness):
            raise ValueError(f"steepness must be a number > 0, got {self.steepness!r}")

    def allows(self, n: int) -> bool:
        return n >= 1

    def function(self, z: Tensor) -> Tensor:
        h = 1 / (z.shape[-1] + 1)
        source = h**2 * self.steepness * torch.sinh(self.steepness * z)
        return 2 * z - pad(z[..., :-1], (1, 0)) - pad(z[..., 1:], (0, 1), value=1.0) + source

    def first(self, n: int) -> Tensor:
        return torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)

    def known(self, n: int) -> list[Root]:
        h, steepness = 1 / (n + 1), self.steepness

        def residual(y: Array) -> tuple[Array, Array]:
            wide = np.concatenate(([0.0], y, [1.0]))
            value = 2 * y - wide[:-2] - wide[2:] + h**2 * steepness * np.sinh(steepness * y)
            diagonal = 2 + (h * steepness) ** 2 * np.cosh(steepness * y)
            return value, np.stack((np.full(n, -1.0), diagonal, np.full(n, -1.0)))

        return [Root(torch.from_numpy(banded_newton(residual, self.first(n).numpy(), 1, 1)))]
