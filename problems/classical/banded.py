"""Broyden's tridiagonal and banded functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..problem import Root, TestProblem
from ..reference import Array, banded_newton

_BELOW, _ABOVE = 5, 1
_OTHERS = [k for k in range(_BELOW + 1 + _ABOVE) if k != _BELOW]


@dataclass(frozen=True)
class BroydenTridiagonal(TestProblem):
    """`(3 − 2 x_i) x_i − x_{i−1} − 2 x_{i+1} + 1`: diagonally dominant near the root."""

    name = "broyden-tridiagonal"
    tags = ("classical", "scalable")
    source = "Broyden 1965; Moré, Garbow & Hillstrom 1981, problem 30"
    standard_size = 10
    sizes = "1, 2, …"
    remark = "The root that Newton's method finds from the start is given; more exist."

    def allows(self, n: int) -> bool:
        return n >= 1

    def function(self, z: Tensor) -> Tensor:
        return (3 - 2 * z) * z - pad(z[..., :-1], (1, 0)) - 2 * pad(z[..., 1:], (0, 1)) + 1

    def first(self, n: int) -> Tensor:
        return -torch.ones(n, dtype=torch.float64)

    def known(self, n: int) -> list[Root]:
        def residual(x: Array) -> tuple[Array, Array]:
            wide = np.pad(x, 1)
            value = (3 - 2 * x) * x - wide[:-2] - 2 * wide[2:] + 1
            return value, np.stack((np.full(n, -2.0), 3 - 4 * x, np.full(n, -1.0)))

        return [Root(torch.from_numpy(banded_newton(residual, -np.ones(n), 1, 1)))]


@dataclass(frozen=True)
class BroydenBanded(TestProblem):
    """`x_i (2 + 5 x_i²) + 1 − Σ x_j (1 + x_j)` over five neighbours below and one above."""

    name = "broyden-banded"
    tags = ("classical", "scalable")
    source = "Broyden 1971; Moré, Garbow & Hillstrom 1981, problem 31"
    standard_size = 10
    sizes = "1, 2, …"
    remark = "The root that Newton's method finds from the start is given."

    def allows(self, n: int) -> bool:
        return n >= 1

    def function(self, z: Tensor) -> Tensor:
        n = z.shape[-1]
        neighbours = pad(z * (1 + z), (_BELOW, _ABOVE))
        total = sum((neighbours[..., k : k + n] for k in _OTHERS), start=torch.zeros_like(z))
        return z * (2 + 5 * z**2) + 1 - total

    def first(self, n: int) -> Tensor:
        return -torch.ones(n, dtype=torch.float64)

    def known(self, n: int) -> list[Root]:
        def residual(x: Array) -> tuple[Array, Array]:
            neighbours = np.pad(x * (1 + x), (_BELOW, _ABOVE))
            value = x * (2 + 5 * x**2) + 1 - sum(neighbours[k : k + n] for k in _OTHERS)
            diagonals = np.tile(-(1 + 2 * x), (_BELOW + 1 + _ABOVE, 1))
            diagonals[_ABOVE] = 2 + 15 * x**2
            return value, diagonals

        return [Root(torch.from_numpy(banded_newton(residual, -np.ones(n), _BELOW, _ABOVE)))]
