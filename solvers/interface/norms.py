"""Root-mean-square norms: the size of one entry, whatever the number of unknowns."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_unit(n: int) -> float:
    """The factor from the Euclidean norm of `n` entries to their root mean square."""
    return 1.0 / max(n, 1) ** 0.5


def rms(rows: Tensor) -> Tensor:
    """Root-mean-square norms along the last axis.

    Examples:
        >>> rms(torch.tensor([[3.0, 4.0], [1.0, 1.0]])).square().tolist()
        [12.5, 1.0]
    """
    return torch.linalg.vector_norm(rows, dim=-1) / max(rows.shape[-1], 1) ** 0.5
