"""Jacobians of functions of plain tensors by finite differences, central ones where bounds leave room."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def blocks(
    function: Function,
    at: Tensor,
    typical: float,
    bounds: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The Jacobians of `function`, which acts on each row alone, at the rows of `at`: `(rows, m, n)`.

    Entry `j` of all rows is moved at once by `eps^(1/3) max(|x_j|, typical)` to either side: `2 n`
    evaluations, however many rows there are. The error is some `eps^(2/3)` of the size of the terms of
    `function`.

    Args:
        function: From `(rows, n)` to `(rows, m)`.
        at: The point.
        typical: The size of a number below which steps get no smaller.
        bounds: Lower and upper bounds, like `at`, outside of which the function is not evaluated: beside a
            bound both points are on its inner side, and the difference is that of the parabola through them.

    Source: Dennis & Schnabel 1983, section 5.6 (central differences, their step); Fornberg 1988 (one-sided
    differences of second order).
    """
    if bounds is not None:
        return _between(function, at, typical, *bounds)
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


def _between(
    function: Function, at: Tensor, typical: float, lower: Tensor, upper: Tensor
) -> Tensor:
    """The Jacobians from points between bounds: the derivative of the parabola through three values."""
    here = function(at)
    step = torch.finfo(at.dtype).eps ** (1 / 3) * at.abs().clamp(min=typical)
    step = torch.minimum(step, (upper - lower) / 4)
    columns = []
    for j in range(at.shape[1]):
        x, h = at[:, j], step[:, j]
        # The second point is on the other side of x, or twice as far where a bound is too near.
        first = torch.where(x + h <= upper[:, j], x + h, x - h)
        beside = torch.where((x - h >= lower[:, j]) & (first > x), x - h, x + 2 * (first - x))
        second = torch.minimum(torch.maximum(beside, lower[:, j]), upper[:, j])
        a, b = first - x, second - x
        values = (function(_moved(at, j, first)), function(_moved(at, j, second)))
        fixed = (a == 0) | (b == 0)
        a, b = torch.where(fixed, 1.0, a), torch.where(fixed, -1.0, b)
        weights = torch.stack((b / (a * (b - a)), -a / (b * (b - a))))
        weights = torch.where(fixed, 0.0, weights).unsqueeze(2)
        columns.append(weights[0] * (values[0] - here) + weights[1] * (values[1] - here))
    if not columns:
        return here.unsqueeze(2).expand(-1, -1, 0)
    return torch.stack(columns, dim=2)


def _moved(at: Tensor, j: int, entry: Tensor) -> Tensor:
    """The points with other numbers in their column `j`."""
    moved = at.clone()
    moved[:, j] = entry
    return moved
