"""An equation and an objective whose unknowns have bounds, for tests of solutions and of derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

D = torch.float64
X = torch.tensor([3.0, 2.0], dtype=D)


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=D)


def logarithm(z: Tensor, x: Tensor) -> Tensor:
    """`log a + b = x₀`, `a b = x₁`: it has no value but for `a > 0`."""
    a, b = z.unbind(-1)
    return torch.stack((torch.log(a) + b - x[..., 0], a * b - x[..., 1]), dim=-1)


def pulled(z: Tensor, x: Tensor) -> Tensor:
    """An objective whose first unknown is free and whose others are pulled over their bounds."""
    a, b, c = z.unbind(-1)
    pull = (a - x[..., 0]) ** 2 + (b - 4 * x[..., 1]) ** 2 + (c + x[..., 0]) ** 2
    return pull + a * b * x[..., 1] + 0.1 * a**4
