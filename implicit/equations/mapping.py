"""Mapped axes, moved to the front, where an equation has its batch axes.

Derivatives with `is_grads_batched=True` or `vectorize=True` of `torch.autograd`, and those that
`gradcheck(check_batched_grad=True)` takes, are mapped by an older `vmap`, which knows no rules of autograd
functions. A derivative rule that meets its tensors takes the axis out and maps itself by `torch.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from .layout import Leaves


def in_front(tensor: Tensor, dim: int | None, size: int, *, expand: bool = True) -> Tensor:
    """`tensor` with its mapped axis `dim` in front; unmapped, it gains one of `size` if `expand`."""
    if dim is not None:
        return tensor.movedim(dim, 0)
    return tensor.expand(size, *tensor.shape) if expand else tensor


def mapped_by_autograd(tensors: Iterable[Tensor | None]) -> bool:
    """True if one of `tensors` has an axis that autograd maps."""
    return any(tensor is not None and is_legacy_batchedtensor(tensor) for tensor in tensors)


def with_axis_of_autograd(function: Callable[..., Leaves], tensors: Leaves) -> Leaves:
    """`function(*tensors)`, with `torch.vmap` over the axis that autograd maps.

    Raises:
        RuntimeError: Autograd maps more than one axis.
    """
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    plain = [
        torch._remove_batch_dim(tensor, level, 1, 0) if is_legacy_batchedtensor(tensor) else tensor
        for tensor in tensors
    ]
    if level != 1 or mapped_by_autograd(plain):
        raise RuntimeError(
            "derivatives of a solve cannot be mapped twice by is_grads_batched=True or vectorize=True; use "
            "torch.func.jacrev, torch.func.jacfwd, torch.func.hessian or torch.vmap"
        )
    dims = [0 if is_legacy_batchedtensor(tensor) else None for tensor in tensors]
    # Inside of the older `vmap` random numbers are refused, but those of an equation are replayed.
    torch._C._vmapmode_decrement_nesting()
    try:
        outputs = torch.vmap(function, in_dims=tuple(dims), randomness="same")(*plain)
    finally:
        torch._C._vmapmode_increment_nesting()
    return tuple(torch._add_batch_dim(output, 0, level) for output in outputs)
