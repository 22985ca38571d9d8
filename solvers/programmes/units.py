"""The units in which quadratic programmes are solved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..interface.programme import Programme
from ..linear.dense import powers_of_two
from .point import Point, largest

# Passes over rows and columns, each of which brings the largest entries nearer to one.
_PASSES = 4


@dataclass(frozen=True)
class Units:
    """Powers of two between a programme and the one that is solved in its place.

    Attributes:
        unknowns: Unknowns per scaled unknown, `(batch, n)`.
        equality: Multipliers per multiplier of the scaled equations, `(batch, p)`.
        inequality: The same of the inequalities, `(batch, m)`.
    """

    unknowns: Tensor
    equality: Tensor
    inequality: Tensor

    def back(self, at: Point) -> Point:
        """A point of the scaled programme in the units of the given one."""
        return Point(
            self.unknowns * at.z, self.equality * at.equality, self.inequality * at.inequality
        )


def scaled(programme: Programme) -> tuple[Programme, Units]:
    """The programmes with entries near one, and the units of that.

    Rows and columns of the matrix of the conditions are brought to entries of at most about one, then the
    unknowns and the objective to numbers of the size one. All factors are powers of two, which round nothing.

    Source: Ruiz 2001; Stellato et al. 2020, section 5.1 (of quadratic programmes).
    """
    sizes = Programme(*(part.abs() for part in programme))
    columns, rows, sides = (torch.ones_like(part) for part in programme[1::2])
    for _ in range(_PASSES):
        parts = ((sizes.Q, columns), (sizes.A, rows), (sizes.G, sides))
        most = torch.stack([_weighted(part, weights) for part, weights in parts]).amax(dim=0)
        own = (_weighted(part.mT, columns) * w for part, w in parts[1:])
        row, side = (powers_of_two(size.sqrt()) for size in own)
        columns = columns * powers_of_two((most * columns).sqrt())
        rows, sides = rows * row, sides * side
    unit, cost = _levels(sizes, columns, rows, sides)
    across = unit * columns
    found = Programme(
        (across / cost).unsqueeze(2) * programme.Q * across.unsqueeze(1),
        programme.q * across / cost,
        rows.unsqueeze(2) * programme.A * columns.unsqueeze(1),
        rows * programme.b / unit,
        sides.unsqueeze(2) * programme.G * columns.unsqueeze(1),
        sides * programme.h / unit,
    )
    return found, Units(across, cost / unit * rows, cost / unit * sides)


def _levels(
    sizes: Programme, columns: Tensor, rows: Tensor, sides: Tensor
) -> tuple[Tensor, Tensor]:
    """The units of unknowns and objective, `(batch, 1)`, that are left once the entries are near one."""
    curvature, slope = largest(columns * _weighted(sizes.Q, columns)), largest(columns * sizes.q)
    pull = torch.where(curvature > 0, slope / torch.where(curvature > 0, curvature, 1.0), 0.0)
    limits = torch.maximum(largest(rows * sizes.b), largest(sides * sizes.h))
    unit = powers_of_two(torch.maximum(pull, limits)).reciprocal()
    return unit, powers_of_two(torch.maximum(slope * unit, curvature * unit**2)).reciprocal()


def _weighted(matrices: Tensor, weights: Tensor) -> Tensor:
    """The largest entry of each column, of rows times weights, `(batch, n)`; 0 of none."""
    if matrices.shape[1] == 0:
        return matrices.new_zeros(len(matrices), matrices.shape[2])
    return (weights.unsqueeze(2) * matrices).amax(dim=1)
