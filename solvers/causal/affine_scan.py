"""Affine recurrences `δ_t = A_t δ_{t−1} + b_t` in `2 log₂ T` parallel steps instead of `T`."""

from __future__ import annotations

import torch
from torch import Tensor


def affine_scan(slopes: Tensor, offsets: Tensor) -> Tensor:
    """All `δ_t = A_t δ_{t−1} + b_t` with `δ_{−1} = 0`.

    Composing each step with the next one halves the number of steps,

        δ_{2k+1} = (A_{2k+1} A_{2k}) δ_{2k−1} + (A_{2k+1} b_{2k} + b_{2k+1}),

    until one is left; on the way back each even step takes one product with the odd one before it. Only
    the way up multiplies matrices, `T` in all, since the products of the `A_t` themselves are not needed.
    `δ_t` is computed from steps up to `t` alone, by the same operations whatever follows.

    Args:
        slopes: `A`, `(batch, T, d, d)`, or `(batch, T, d)` for diagonal matrices.
        offsets: `b`, `(batch, T, d)`.

    Returns:
        `δ`, `(batch, T, d)`. It takes the memory of two more copies of the arguments.

    Source: Blelloch 1990 (recurrences as scans); Hockney & Jesshope 1988 (cyclic reduction).

    Examples:
        >>> import torch
        >>> halves = torch.full((1, 4, 1), 0.5)
        >>> affine_scan(halves, torch.ones(1, 4, 1)).flatten().tolist()
        [1.0, 1.5, 1.75, 1.875]
    """
    length = slopes.shape[1]
    if length <= 1:
        return offsets
    even, odd = slopes[:, 0 : length - 1 : 2], slopes[:, 1::2]
    even_offset, odd_offset = offsets[:, 0 : length - 1 : 2], offsets[:, 1::2]
    composed = odd * even if slopes.ndim == 3 else odd @ even
    at_odd = affine_scan(composed, multiply(odd, even_offset) + odd_offset)
    at_even = offsets[:, 0::2].clone()
    later = slopes[:, 2::2]
    at_even[:, 1:] += multiply(later, at_odd[:, : later.shape[1]])
    result = torch.empty_like(offsets)
    result[:, 0::2] = at_even
    result[:, 1::2] = at_odd
    return result


def multiply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """`A v` for matrices `(..., d, d)`, or the diagonals of such, `(..., d)`, and vectors `(..., d)`."""
    if matrices.ndim == vectors.ndim:
        return matrices * vectors
    return (matrices @ vectors.unsqueeze(-1)).squeeze(-1)
