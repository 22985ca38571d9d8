"""Kinds of tensors: the ones that an equation can be solved for, and the ways to them from others."""

from __future__ import annotations

import torch
from torch import Tensor

_DTYPES = frozenset(
    (
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.complex32,
        torch.complex64,
        torch.complex128,
    )
)


def in_the_way(tensor: Tensor) -> str | None:
    """The kind of a tensor that is no unknown of an equation and no value of one, with the way out.

    An unknown has one entry for each place of its shape, and a value in each. `None` for such a tensor.

    Examples:
        >>> in_the_way(torch.eye(2).to_sparse())
        'got torch.sparse_coo; use to_dense()'
    """
    if type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.is_nested:
        return None if tensor.dtype in _DTYPES else _other_dtype(tensor.dtype)
    if is_masked(tensor):
        return "got a masked tensor; use its to_tensor(0.0), and multiply by its mask inside of the function"
    if tensor.is_nested:
        return (
            "got a nested tensor; use torch.nested.to_padded_tensor(tensor, 0.0) with a mask, or solve for "
            "its parts, a list of tensors (tensor.unbind())"
        )
    if tensor.layout is not torch.strided:
        return f"got {tensor.layout}; use to_dense()"
    return None if tensor.dtype in _DTYPES else _other_dtype(tensor.dtype)


def is_masked(tensor: Tensor) -> bool:
    """True for a `torch.masked.MaskedTensor`, which lacks most of PyTorch's operations."""
    kind = type(tensor)
    return kind is not Tensor and any(base.__name__ == "MaskedTensor" for base in kind.__mro__)


def is_ragged(tensor: Tensor) -> bool:
    """True for a nested tensor in the strided layout, which autograd functions do not take."""
    return not is_masked(tensor) and tensor.is_nested and tensor.layout is torch.strided


def _other_dtype(dtype: torch.dtype) -> str | None:
    if not (dtype.is_floating_point or dtype.is_complex):
        return None  # Integers have a message of their own.
    return (
        f"got {dtype}, which PyTorch does not compute in; convert it, z0.float() or z0.bfloat16()"
    )


RAGGED = (
    "requires gradients and is a nested tensor in the strided layout, which PyTorch's autograd functions do "
    "not take: make it with layout=torch.jagged, or give torch.nested.to_padded_tensor(tensor, 0.0)"
)
