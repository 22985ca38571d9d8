"""Products, norms and ratios of a batch, row by row: `(batch, 1)` where there is one for each row."""

from __future__ import annotations

import torch
from torch import Tensor


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the rows."""
    return (a * b).sum(dim=1, keepdim=True)


def product(matrices: Tensor, a: Tensor) -> Tensor:
    """`A x` for matrices `(batch, m, n)` and the rows, `(batch, m)`."""
    return torch.bmm(matrices, a.unsqueeze(2)).squeeze(2)


def norm(a: Tensor) -> Tensor:
    """Euclidean norms of the rows."""
    return torch.linalg.vector_norm(a, dim=1, keepdim=True)


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """`a / b`, and 0 where `b` is 0."""
    return torch.where(b != 0, a / torch.where(b != 0, b, 1.0), 0.0)
