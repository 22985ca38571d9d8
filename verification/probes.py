"""Random probe directions, seeded and drawn on the CPU, so that they are the same on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from .real import size_of, wide_dtype

KINDS = ("gaussian", "scaled", "signs", "gaussian again")


def moved_at_random(value: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """`value` and a Gaussian draw, as large as a share of its root-mean-square size.

    Examples:
        >>> moved_at_random(torch.zeros(2), 0.5, torch.Generator()).tolist()
        [0.0, 0.0]
    """
    draw = torch.randn(value.shape, generator=generator, dtype=wide_dtype(value.dtype))
    step = share * root_mean_square(value) * draw.to(value.device)
    return value + step.to(value.dtype)


def root_mean_square(value: Tensor) -> float:
    """Root-mean-square size of the entries, in float64.

    Examples:
        >>> root_mean_square(torch.tensor([1.0, -7.0]))
        5.0
    """
    return size_of(value) / max(value.numel(), 1) ** 0.5


def probe(kind: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """A direction of root-mean-square size about one.

    Gaussian directions weigh all components alike. Scaled ones spread the weights over four decades, so
    that large components do not hide small ones. Signs weigh them exactly alike.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> probe(2, torch.zeros(2, 3), generator).abs().unique().item()
        1.0
    """
    kind %= len(KINDS)
    shape = like.shape
    direction = torch.randn(shape, generator=generator, dtype=wide_dtype(like.dtype))
    if kind == 1:
        decades = 4 * torch.rand(shape, generator=generator, dtype=torch.float64)
        direction = direction * 10**-decades
        size = (
            direction.abs().square().mean().sqrt() if direction.numel() else direction.abs().sum()
        )
        direction = direction / size.clamp(min=torch.finfo(torch.float64).tiny)
    elif kind == 2:
        if direction.is_complex():
            direction = direction / direction.abs().clamp(min=torch.finfo(torch.float64).tiny)
        else:
            direction = torch.where(direction < 0, -1.0, 1.0)
    return direction.to(like.device, like.dtype)
