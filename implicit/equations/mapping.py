"""Mapped axes of `vmap`, moved to the front, where an equation has its batch axes."""

from __future__ import annotations

from torch import Tensor


def in_front(tensor: Tensor, dim: int | None, size: int, *, expand: bool = True) -> Tensor:
    """`tensor` with its mapped axis `dim` in front; unmapped, it gains one of `size` if `expand`."""
    if dim is not None:
        return tensor.movedim(dim, 0)
    return tensor.expand(size, *tensor.shape) if expand else tensor
