"""Jacobians of functions of plain tensors by central differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def blocks(function: Function, at: Tensor, typical: float) -> Tensor:
    """The Jacobians of `function`, which acts on each row alone, at the rows of `at`: `(rows, m, n)`.

    Entry `j` of all rows is moved at once by `eps^(1/3) max(|x_j|, typical)` to either side: `2 n`
    evaluations, however many rows there are. The error is some `eps^(2/3)` of the size of the terms of
    `function`.

    Args:
        function: From `(rows, n)` to `(rows, m)`.
        at: The point.
        typical: The size of a number below which steps get no smaller.

    Source: Dennis & Schnabel 1983, section 5.6 (central differences, their step).
    """
    step = torch.finfo(at.dtype).eps ** (1 / 3) * at.abs().clamp(min=typical)
    columns = []
    for j in range(at.shape[1]):
        move = torch.zeros_like(at)
        move[:, j] = step[:, j]
        above, below = at + move, at - move
        # The width that the numbers have, not the one that was asked for.
        width = (above - below)[:, j : j + 1]
        columns.append((function(above) - function(below)) / width)
    if not columns:
        return function(at).unsqueeze(2).expand(-1, -1, 0)
    return torch.stack(columns, dim=2)
