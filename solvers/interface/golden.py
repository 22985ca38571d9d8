"""A quasi-random sequence: the same for everybody, and in no resonance with a grid."""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN_RATIO = 0.6180339887498949


def golden_sequence(count: int, first: int = 0, device: torch.device | None = None) -> Tensor:
    """The fractional parts of `k φ`, `k = first, …, first + count − 1`, in float64 (Weyl 1916).

    Examples:
        >>> golden_sequence(3).round(decimals=3).tolist()
        [0.0, 0.618, 0.236]
    """
    index = torch.arange(first, first + count, dtype=torch.float64, device=device)
    return (index * _GOLDEN_RATIO) % 1.0


def golden_signs(like: Tensor, first: int = 0) -> Tensor:
    """Signs by the sequence, one for each column of `like`, `(n,)`.

    Examples:
        >>> golden_signs(torch.zeros(1, 3)).tolist()
        [1.0, -1.0, 1.0]
    """
    draw = golden_sequence(like.shape[1], first, like.device)
    return torch.where(draw < 0.5, 1.0, -1.0).to(like.dtype)
