"""Base of generated problems, whose numbers are drawn once, on the host in float64."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...options.options import check_integer
from ...solvers.interface.problem import Form
from ..problem import Device, Root, TestProblem

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Generated(TestProblem):
    """A fixed point `z = f(z)` that is drawn from a seed, with a root chosen beforehand.

    `draw` returns the arguments of `function` as arrays, and the root as the last one. A call without
    arguments uses the same arrays, drawn once. Matrices are dense.

    Attributes:
        seed: Seed of the generator.
    """

    seed: int = 0

    standard_size: ClassVar[int] = 20
    sizes: ClassVar[str] = "1, 2, …"
    form: ClassVar[Form] = "fixed_point"
    tags: ClassVar[tuple[str, ...]] = ("generated",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("seed", self.seed, 0)
        self.check()

    def check(self) -> None:
        """Raise a `ValueError` if a parameter is out of range."""

    @abstractmethod
    def draw(self, n: int, generator: np.random.Generator) -> tuple[Array, ...]:
        """The arguments of `function`, and the root."""

    def allows(self, n: int) -> bool:
        return n >= 1

    def args(
        self, n: int | None = None, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> tuple[Tensor, ...]:
        arrays = _drawn(self, self.size(n))[:-1]
        return tuple(torch.tensor(array, dtype=dtype, device=device) for array in arrays)

    def first(self, n: int) -> Tensor:
        return torch.zeros(*self.batch_shape, n, dtype=torch.float64)

    def known(self, n: int) -> list[Root]:
        return [Root(torch.tensor(_drawn(self, n)[-1]))]

    def given(self, z: Tensor, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """`args`, or the problem's own."""
        return args or self.args(z.shape[-1], z.dtype, z.device)


@lru_cache(maxsize=16)
def _drawn(problem: Generated, n: int) -> tuple[Array, ...]:
    return problem.draw(n, np.random.default_rng(problem.seed))


def orthogonal(n: int, generator: np.random.Generator) -> Array:
    """A random orthogonal matrix, uniformly distributed up to signs (Stewart 1980)."""
    return np.asarray(np.linalg.qr(generator.standard_normal((n, n)))[0], dtype=np.float64)
