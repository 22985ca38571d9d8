"""Square roots of matrices that are nearly nilpotent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Root, TestProblem


def _squared(z: Tensor, order: int) -> Tensor:
    """`X² − A`, row by row, where `A` is 1e-4 on the diagonal and 1 at (1, 2)."""
    root = z.unflatten(-1, (order, order))
    matrix = 1e-4 * torch.eye(order, dtype=z.dtype, device=z.device)
    matrix[0, 1] = 1.0
    return (root @ root - matrix).flatten(-2)


@dataclass(frozen=True)
class MatrixSquareRoot2(TestProblem):
    """A 2 × 2 Jordan block: the smallest singular value of the Jacobian at a root is 1.6e-9."""

    name = "matrix-square-root-2"
    tags = ("classical",)
    source = "Hammarling; Higham 1987"
    standard_size = 4
    sizes = "4"
    remark = "Both roots are given."

    def function(self, z: Tensor) -> Tensor:
        return _squared(z, 2)

    def first(self, n: int) -> list[float]:
        return [1.0, 0.0, 0.0, 1.0]

    def known(self, n: int) -> list[Root]:
        root = (0.01, 50.0, 0.0, 0.01)
        return [Root.of(root), Root.of(-entry for entry in root)]


@dataclass(frozen=True)
class MatrixSquareRoot3(TestProblem):
    """A 2 × 2 Jordan block beside its own eigenvalue."""

    name = "matrix-square-root-3"
    tags = ("classical",)
    source = "Hammarling; Higham 1987"
    standard_size = 9
    sizes = "9"
    remark = (
        "Square roots with eigenvalues of both signs are a continuum (singular), of which two members "
        "are given; the other two are all roots with eigenvalues of one sign."
    )

    def function(self, z: Tensor) -> Tensor:
        return _squared(z, 3)

    def first(self, n: int) -> list[float]:
        return [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]

    def known(self, n: int) -> list[Root]:
        block = (0.01, 50.0, 0.0, 0.0, 0.01, 0.0, 0.0, 0.0)
        return [
            Root.of((*(sign * entry for entry in block), last), singular=sign * last < 0)
            for sign in (1, -1)
            for last in (0.01, -0.01)
        ]
