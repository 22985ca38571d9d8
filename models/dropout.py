"""Variational dropout: masks drawn once in a forward pass.

A mask is an argument of the equation, the same in every iteration of the solve, in its adjoint and at
every time step (Gal & Ghahramani 2016). Sharing over time keeps it small beside the activations.
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw_mask(shape: tuple[int, ...], rate: float, like: Tensor, training: bool) -> Tensor | None:
    """A mask of zeros with probability `rate`, else `1 / (1 − rate)`; `None` without dropout.

    Args:
        shape: The shape of the mask.
        rate: The probability of a zero, in `[0, 1)`.
        like: Tensor of the wanted dtype and device.
        training: True in training; else there is no mask.

    Examples:
        >>> mask = draw_mask((2, 1, 100), 0.5, torch.zeros(1), training=True)
        >>> set(mask.flatten().tolist()) == {0.0, 2.0}
        True
        >>> draw_mask((2, 1, 100), 0.5, torch.zeros(1), training=False) is None
        True
    """
    if rate == 0 or not training:
        return None
    keep = 1.0 - rate
    return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(keep).div_(keep)


def apply_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """Multiply `x` by the mask, if there is one."""
    return x if mask is None else x * mask
