"""Deep equilibrium layers with a known equilibrium."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...options.options import is_positive
from .generated import Array, Generated


@dataclass(frozen=True)
class TanhEquilibrium(Generated):
    """`z = tanh(W z + b)` with Gaussian `W` scaled to a spectral norm; `b` is made for a chosen root.

    Attributes:
        norm: `‖W‖₂`; below 1 the map contracts, above it may have several fixed points.
    """

    norm: float = 0.9

    name = "tanh-equilibrium"
    source = "Bai, Kolter & Koltun 2019"
    tags = ("generated", "application")
    remark = "The root is the only one if the norm is below 1."

    def check(self) -> None:
        if not is_positive(self.norm):
            raise ValueError(f"norm must be a number > 0, got {self.norm!r}")

    def draw(self, n: int, generator: np.random.Generator) -> tuple[Array, ...]:
        weight = generator.standard_normal((n, n))
        weight *= self.norm / np.linalg.norm(weight, 2)
        inside = generator.standard_normal(n)
        root = np.tanh(inside)
        return weight, inside - weight @ root, root

    def function(self, z: Tensor, *args: Tensor) -> Tensor:
        weight, bias = self.given(z, args)
        return torch.tanh(z @ weight.mT + bias)


@dataclass(frozen=True)
class MonotoneEquilibrium(Generated):
    """`z = relu(W z + b)` with `W = (1 − m) I − AᵀA + B − Bᵀ`.

    `I − W` is strongly monotone with constant `m`, so there is one equilibrium; the map need not
    contract.

    Attributes:
        margin: `m`.
    """

    margin: float = 0.1

    name = "monotone-equilibrium"
    source = "Winston & Kolter 2020, equation 9"
    remark = "The root is the only one."

    def check(self) -> None:
        if not is_positive(self.margin):
            raise ValueError(f"margin must be a number > 0, got {self.margin!r}")

    def draw(self, n: int, generator: np.random.Generator) -> tuple[Array, ...]:
        a, b = generator.standard_normal((2, n, n)) / np.sqrt(n)
        weight = (1 - self.margin) * np.eye(n) - a.T @ a + b - b.T
        inside = generator.standard_normal(n)
        root = np.maximum(inside, 0.0)
        return weight, inside - weight @ root, root

    def function(self, z: Tensor, *args: Tensor) -> Tensor:
        weight, bias = self.given(z, args)
        return torch.relu(z @ weight.mT + bias)
