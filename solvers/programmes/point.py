"""Points of quadratic programmes: unknowns and multipliers, and how far they are from a minimiser.

A point with the multipliers `y` of the equations and `λ ≥ 0` of the inequalities is a minimiser if

    Q z + q + Aᵀ y + Gᵀ λ = 0,    A z = b,    s = h − G z ≥ 0,    λ s = 0

Source: Nocedal & Wright 2006, theorem 16.4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..interface.programme import Programme
from ..linear.rows import product


class Point(NamedTuple):
    """Unknowns of a batch of programmes.

    Attributes:
        z: `(batch, n)`.
        equality: `y`, `(batch, p)`.
        inequality: `λ`, `(batch, m)`.
    """

    z: Tensor
    equality: Tensor
    inequality: Tensor

    def take(self, rows: Tensor) -> Point:
        """The points of some programmes."""
        return Point(*(part.index_select(0, rows) for part in self))

    def put(self, rows: Tensor, some: Point) -> Point:
        """The points with those of some programmes replaced."""
        return Point(*(part.index_copy(0, rows, new) for part, new in zip(self, some, strict=True)))


def gradient_at(programme: Programme, at: Point) -> Tensor:
    """`Q z + q + Aᵀ y + Gᵀ λ`."""
    dual = product(programme.A.mT, at.equality) + product(programme.G.mT, at.inequality)
    return product(programme.Q, at.z) + programme.q + dual


def equations_at(programme: Programme, at: Point) -> Tensor:
    """`A z − b`."""
    return product(programme.A, at.z) - programme.b


def slack_at(programme: Programme, at: Point) -> Tensor:
    """`h − G z`."""
    return programme.h - product(programme.G, at.z)


def sizes_at(programme: Programme, at: Point) -> tuple[Tensor, Tensor]:
    """The sizes, `(batch, 1)`, of unknowns and of multipliers, by the largest number of their kind."""
    primal = torch.maximum(largest(at.z), torch.maximum(largest(programme.b), largest(programme.h)))
    dual = torch.maximum(largest(at.equality), largest(at.inequality))
    return primal, torch.maximum(dual, largest(programme.q))


def largest(rows: Tensor) -> Tensor:
    """The largest size in each row, `(batch, 1)`; 0 of none."""
    if rows.shape[1] == 0:
        return rows.new_zeros(len(rows), 1)
    return rows.abs().amax(dim=1, keepdim=True)
