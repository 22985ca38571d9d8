"""Lengths of steps, entry by entry: a tensor of many scales has many of them."""

from __future__ import annotations

import torch
from torch import Tensor

_SCALES = 10.0
"""Entries get steps of their own if their root-mean-square size exceeds their median by this factor."""


def lengths_of(value: Tensor, forced: bool = False) -> Tensor | None:
    """The length over which a function may be expected to change in each entry.

    It is the root-mean-square size of all entries, unless a few large ones dominate it: then it is the
    size of each entry itself, and the median for a zero.

    Args:
        value: The tensor.
        forced: True if steps in the root-mean-square size leave the domain.

    Returns:
        float64 lengths in the shape of `value`, or `None` for the root-mean-square size everywhere.

    Examples:
        >>> lengths_of(torch.tensor([1e-6, 1e-3, 1.0, -1e6], dtype=torch.float64)).tolist()
        [1e-06, 0.001, 1.0, 1000000.0]
        >>> lengths_of(torch.tensor([1.0, -2.0])) is None
        True
    """
    sizes = value.abs().to(torch.float64)
    present = sizes[(sizes > 0) & torch.isfinite(sizes)]
    if present.numel() == 0:
        return None
    root_mean_square, median = present.square().mean().sqrt(), present.median()
    if not forced and root_mean_square <= _SCALES * median:
        return None
    return torch.where(sizes > 0, sizes, median.minimum(root_mean_square))
