"""Boundary-value problem, its integral equation, and Chandrasekhar's H-equation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...options.options import is_number
from ..problem import Root, TestProblem, indices
from ..reference import Array, banded_newton, dense_newton


def _parabola(n: int) -> Tensor:
    t = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
    return t * (t - 1)


def _boundary_value_root(n: int) -> Root:
    h = 1 / (n + 1)
    t = h * np.arange(1, n + 1)

    def residual(x: Array) -> tuple[Array, Array]:
        wide = np.pad(x, 1)
        value = 2 * x - wide[:-2] - wide[2:] + h**2 / 2 * (x + t + 1) ** 3
        diagonal = 2 + 1.5 * h**2 * (x + t + 1) ** 2
        return value, np.stack((np.full(n, -1.0), diagonal, np.full(n, -1.0)))

    return Root(torch.from_numpy(banded_newton(residual, t * (t - 1), 1, 1)))


@dataclass(frozen=True)
class DiscreteBoundaryValue(TestProblem):
    """`x″ = (x + t + 1)³ / 2`, zero at both ends, by second differences."""

    name = "discrete-boundary-value"
    tags = ("classical", "scalable")
    source = "Moré & Cosnard 1979; Moré, Garbow & Hillstrom 1981, problem 28"
    standard_size = 10
    sizes = "1, 2, …"
    remark = "The root is the only one: the Laplacian plus an increasing function."

    def allows(self, n: int) -> bool:
        return n >= 1

    def function(self, z: Tensor) -> Tensor:
        h = 1 / (z.shape[-1] + 1)
        cube = (z + h * indices(z) + 1) ** 3
        return 2 * z - pad(z[..., :-1], (1, 0)) - pad(z[..., 1:], (0, 1)) + h**2 / 2 * cube

    def first(self, n: int) -> Tensor:
        return _parabola(n)

    def known(self, n: int) -> list[Root]:
        return [_boundary_value_root(n)]


@dataclass(frozen=True)
class DiscreteIntegral(TestProblem):
    """The boundary-value problem multiplied by the inverse of its difference matrix."""

    name = "discrete-integral"
    tags = ("classical", "scalable")
    source = "Moré & Cosnard 1979; Moré, Garbow & Hillstrom 1981, problem 29"
    standard_size = 10
    sizes = "1, 2, …"
    remark = "The root is the only one, that of the discrete boundary-value problem."

    def allows(self, n: int) -> bool:
        return n >= 1

    def function(self, z: Tensor) -> Tensor:
        h = 1 / (z.shape[-1] + 1)
        t = h * indices(z)
        cube = (z + t + 1) ** 3
        before = (t * cube).cumsum(-1)
        after = (1 - t) * cube
        after = after.flip(-1).cumsum(-1).flip(-1) - after
        return z + h / 2 * ((1 - t) * before + t * after)

    def first(self, n: int) -> Tensor:
        return _parabola(n)

    def known(self, n: int) -> list[Root]:
        return [_boundary_value_root(n)]


@dataclass(frozen=True)
class ChandrasekharH(TestProblem):
    """The H-equation of radiative transfer by the midpoint rule; its Jacobian is dense.

    Attributes:
        c: The albedo, in (0, 1]; at 1 two roots meet in a singular root.
    """

    c: float = 0.9

    name = "chandrasekhar-h"
    tags = ("classical", "scalable")
    source = "Chandrasekhar 1960; Kelley 1995, section 5.6"
    standard_size = 10
    argument = "c"
    sizes = "1, 2, …"
    remark = (
        "The roots' means are (2/c)(1 ± √(1 − c)); the one with the minus sign is given (half of its "
        "digits if c is 1)."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.c, 0) and 0 < self.c <= 1):
            raise ValueError(f"c must be in (0, 1], got {self.c!r}")

    def allows(self, n: int) -> bool:
        return n >= 1

    def function(self, z: Tensor, c: Tensor | float | None = None) -> Tensor:
        n = z.shape[-1]
        node = (indices(z) - 0.5) / n
        kernel = node.unsqueeze(1) / (node.unsqueeze(1) + node)
        share = (self.c if c is None else c) / (2 * n)
        return z - 1 / (1 - share * (z @ kernel.mT))

    def first(self, n: int) -> list[float]:
        return [1.0] * n

    def known(self, n: int) -> list[Root]:
        node = (np.arange(1, n + 1) - 0.5) / n
        kernel = self.c / (2 * n) * node[:, None] / (node[:, None] + node)

        def residual(x: Array) -> tuple[Array, Array]:
            inverse = 1 / (1 - kernel @ x)
            return x - inverse, np.eye(n) - (inverse**2)[:, None] * kernel

        if self.c < 1:
            return [Root(torch.from_numpy(dense_newton(residual, np.ones(n))))]
        # At a double root Newton's steps halve the error, down to the square root of rounding.
        x = np.ones(n)
        for _ in range(30):
            x = x - np.linalg.solve(*reversed(residual(x)))
        return [Root(torch.from_numpy(x), singular=True)]
