"""Tensors as real float64 numbers: complex entries as pairs, sparse tensors with their zeros.

A derivative of a complex function is one of its real and imaginary parts. PyTorch's gradient in a complex
tensor `z` is `∂L/∂Re z + i ∂L/∂Im z` for a real `L`, and a cotangent `w` of a complex output stands for
`L = Re Σ conj(w) y` (Kreutz-Delgado 2009, section 4). On pairs of real numbers both are ordinary inner
products.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}


def differentiable(tensor: object) -> bool:
    """True for a tensor of real or complex floating-point numbers.

    Examples:
        >>> differentiable(torch.ones(1, dtype=torch.complex64)), differentiable(torch.arange(3))
        (True, False)
    """
    return isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex())


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The double-precision dtype of the same kind; any other dtype is its own.

    Examples:
        >>> wide_dtype(torch.bfloat16), wide_dtype(torch.complex64), wide_dtype(torch.int64)
        (torch.float64, torch.complex128, torch.int64)
    """
    return _WIDE.get(dtype, dtype)


def widened(tensor: Tensor) -> Tensor:
    """The tensor in double precision; integers stay as they are."""
    return tensor.to(wide_dtype(tensor.dtype))


def real(tensor: Tensor) -> Tensor:
    """The entries as float64 numbers, detached; complex ones get a last axis of size two.

    Examples:
        >>> real(torch.tensor([1 + 2j])).tolist()
        [[1.0, 2.0]]
    """
    dense = tensor.detach()
    if dense.layout != torch.strided:
        dense = dense.to_dense()
    if dense.is_complex():
        dense = torch.view_as_real(dense.to(torch.complex128).resolve_conj().resolve_neg())
    return dense.to(torch.float64)


def inner(a: Tensor, b: Tensor) -> float:
    """The real inner product of two tensors of one shape.

    Examples:
        >>> inner(torch.tensor([1j]), torch.tensor([2j]))
        2.0
    """
    return float((real(a) * real(b)).sum())


def size_of(tensor: Tensor) -> float:
    """The Euclidean norm, in float64.

    Examples:
        >>> size_of(torch.tensor([3.0, 4.0]))
        5.0
    """
    return float(real(tensor).norm())


def distance_of(before: Iterable[Tensor], after: Iterable[Tensor]) -> float:
    """The largest relative distance of pairs of tensors; infinite for other shapes."""
    largest = 0.0
    for a, b in zip(before, after, strict=True):
        if a.shape != b.shape:
            return torch.inf
        size, distance = size_of(a), float((real(a) - real(b)).norm())
        largest = max(largest, distance / size if size > 0 else distance)
    return largest
