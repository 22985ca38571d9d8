"""Maps with a prescribed Lipschitz constant, one or a batch of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...options.options import check_integer, is_positive
from .generated import Array, Generated, orthogonal


@dataclass(frozen=True)
class Contraction(Generated):
    """`z* + L U tanh(V (z − z*))` with orthogonal `U`, `V`: its Lipschitz constant `L` is attained at `z*`.

    Attributes:
        lipschitz: `L`; the root is unique below 1.
    """

    lipschitz: float = 0.9

    name = "contraction"
    source = "Banach 1922"
    remark = "The root is the only one if the Lipschitz constant is below 1."

    def check(self) -> None:
        if not is_positive(self.lipschitz):
            raise ValueError(f"lipschitz must be a number > 0, got {self.lipschitz!r}")

    def draw(self, n: int, generator: np.random.Generator) -> tuple[Array, ...]:
        outer, inner = orthogonal(n, generator), orthogonal(n, generator)
        root = generator.standard_normal(n)
        return self.lipschitz * outer, inner, root, root

    def function(self, z: Tensor, *args: Tensor) -> Tensor:
        outer, inner, root = self.given(z, args)
        return root + torch.tanh((z - root) @ inner.mT) @ outer.mT


@dataclass(frozen=True)
class UnequalContractions(Generated):
    """A batch of contractions from easy to hard: the steps of plain iteration grow geometrically.

    Attributes:
        count: Number of independent systems.
        easiest: Lipschitz constant of the first.
        hardest: Lipschitz constant of the last, below 1.
    """

    count: int = 16
    easiest: float = 0.1
    hardest: float = 0.99

    name = "unequal-contractions"
    source = "Banach 1922"
    tags = ("generated", "batch")
    remark = "The root of each system is its only one."

    @property
    def batch_shape(self) -> tuple[int]:
        return (self.count,)

    def check(self) -> None:
        check_integer("count", self.count, 1)
        if not (is_positive(self.easiest) and is_positive(self.hardest)):
            raise ValueError(
                f"easiest and hardest must be numbers > 0, got {self.easiest!r} and {self.hardest!r}"
            )
        if not self.easiest <= self.hardest < 1:
            raise ValueError(
                f"easiest ≤ hardest < 1 is needed, got {self.easiest!r} and {self.hardest!r}"
            )

    def draw(self, n: int, generator: np.random.Generator) -> tuple[Array, ...]:
        factors = 1 - np.geomspace(1 - self.easiest, 1 - self.hardest, self.count)[:, None]
        outer, inner = orthogonal(n, generator), orthogonal(n, generator)
        root = generator.standard_normal((self.count, n))
        return factors, root, outer, inner, root

    def function(self, z: Tensor, *args: Tensor) -> Tensor:
        factor, root, outer, inner = self.given(z, args)
        return root + factor * (torch.tanh((z - root) @ inner.mT) @ outer.mT)
