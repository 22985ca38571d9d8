"""Maps with a prescribed Jacobian spectrum at their fixed point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...options.options import is_number, is_positive, one_of
from ..problem import Root
from .generated import Array, Generated, orthogonal

KINDS = ("real", "complex", "non-normal")


@dataclass(frozen=True)
class Spectrum(Generated):
    """`z* + J tanh(z − z*)`, whose Jacobian at `z*` is `J = Q T Qᵀ` with the given eigenvalues.

    Attributes:
        radius: Spectral radius of `J`; from 1 on plain iteration diverges.
        kind: `"real"`, evenly from `−radius` to `radius`; `"complex"`, pairs on the circle of that radius
            (and one real value if `n` is odd); `"non-normal"`, the real ones in a triangular matrix.
        growth: Superdiagonal of `T` for `kind="non-normal"`: powers of `J` grow before they fall.
    """

    radius: float = 0.9
    kind: str = "real"
    growth: float = 2.0

    name = "spectrum"
    source = "Trefethen & Embree 2005 (non-normal growth)"
    remark = "Others may exist where the norm of the Jacobian is 1 or more."

    def check(self) -> None:
        if not is_positive(self.radius):
            raise ValueError(f"radius must be a number > 0, got {self.radius!r}")
        one_of("kind", self.kind, KINDS)
        if not is_number(self.growth, 0):
            raise ValueError(f"growth must be a number ≥ 0, got {self.growth!r}")

    def eigenvalues(self, n: int) -> np.ndarray:
        """Eigenvalues of `J`, `(n,)`, complex."""
        if self.kind == "complex":
            angles = np.pi * np.arange(1, n // 2 + 1) / (n // 2 + 1)
            pairs = self.radius * np.exp(1j * angles)
            return np.concatenate((pairs, pairs.conj(), [self.radius] * (n % 2)))
        values = np.linspace(-self.radius, self.radius, n) if n > 1 else np.array([self.radius])
        return values.astype(np.complex128)

    def draw(self, n: int, generator: np.random.Generator) -> tuple[Array, ...]:
        values = self.eigenvalues(n)
        triangle = np.diag(values.real)
        if self.kind == "complex":
            half = n // 2
            rotation = np.diag(values[:half].imag)
            triangle[:half, half : 2 * half] = rotation
            triangle[half : 2 * half, :half] = -rotation
        elif self.kind == "non-normal":
            triangle = triangle + self.growth * np.eye(n, k=1)
        basis = orthogonal(n, generator)
        root = generator.standard_normal(n)
        return basis @ triangle @ basis.T, root, root

    def known(self, n: int) -> list[Root]:
        singular = bool(np.any(self.eigenvalues(n) == 1))
        return [Root(root.value, singular) for root in super().known(n)]

    def function(self, z: Tensor, *args: Tensor) -> Tensor:
        jacobian, root = self.given(z, args)
        return root + torch.tanh(z - root) @ jacobian.mT
