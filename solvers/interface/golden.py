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
