"""A rod under a load at its end: it is straight, and buckles at known loads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...options.options import is_positive
from ..problem import Root
from ..reference import Array, banded_newton
from .problem import CurveProblem


@dataclass(frozen=True)
class ElasticRod(CurveProblem):
    """`θ″ + P sin θ = 0`, `θ(0) = θ(1) = 0`, by second differences times `−h²`.

    The straight rod `θ = 0` is a solution for every load. Others branch off, in pitchforks, at the
    eigenvalues of the second difference, `P_k = 4 sin²(k π h / 2) / h²`.

    Attributes:
        load: `P`.
    """

    load: float = 20.0

    name = "elastic-rod"
    source = "Euler 1744; Antman 2005, section 5.3 (buckling)"
    standard_size = 99
    sizes = "1, 2, …"
    argument = "load"
    remark = (
        "The straight rod and the first two bent ones are given; above P₂ ≈ 39.5 there are others."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_positive(self.load):
            raise ValueError(f"load must be a number > 0, got {self.load!r}")

    def allows(self, n: int) -> bool:
        return n >= 1

    def function(self, z: Tensor, load: Tensor | float | None = None) -> Tensor:
        h = 1 / (z.shape[-1] + 1)
        force = self.load if load is None else load
        neighbours = pad(z[..., :-1], (1, 0)) + pad(z[..., 1:], (0, 1))
        return 2 * z - neighbours - force * h**2 * torch.sin(z)

    def first(self, n: int) -> Tensor:
        places = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
        return 2 * torch.sin(torch.pi * places)

    def known(self, n: int) -> list[Root]:
        straight = Root(torch.zeros(n, dtype=torch.float64))
        if self.load <= self.branch_points(n)[0]:
            return [straight]
        force = self.load / (n + 1) ** 2

        def residual(z: Array) -> tuple[Array, Array]:
            wide = np.concatenate(([0.0], z, [0.0]))
            value = 2 * z - wide[:-2] - wide[2:] - force * np.sin(z)
            minus = np.full(n, -1.0)
            return value, np.stack((minus, 2 - force * np.cos(z), minus))

        bent = torch.from_numpy(banded_newton(residual, self.first(n).numpy(), 1, 1))
        return [straight, Root(bent), Root(-bent)]

    def folds(self, n: int | None = None) -> tuple[float, ...]:
        self.size(n)
        return ()

    def branch_points(self, n: int | None = None) -> tuple[float, ...]:
        """The loads at which the straight rod buckles: all `n` of them."""
        n = self.size(n)
        sines = np.sin(np.arange(1, n + 1) * np.pi / (2 * (n + 1)))
        return tuple((4 * (n + 1) ** 2 * sines**2).tolist())
