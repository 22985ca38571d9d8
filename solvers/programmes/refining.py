"""Solutions of quadratic programmes on given active sets, refined to rounding and checked for their signs.

With the active inequalities as equations, and no multipliers for the others, the conditions of optimality are
one linear equation. Any approximate solver of it serves: corrections by what is left of the conditions make
the solution accurate to rounding, and the last of them is its error.

Source: Stellato et al. 2020, section 5.2 (polishing, regularisation with refinement); Higham 2002,
chapter 12.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..interface.programme import Programme
from .point import Point, equations_at, gradient_at, largest, sizes_at, slack_at

Solve = Callable[[Tensor, Tensor, Tensor], Point]
"""An approximate solution of the linear equation, from right sides for `z`, equations and inequalities."""

# Added to the diagonals of matrices, in whose units entries are near one.
REGULAR = 1e-9
# Refinements of one equation, each of which must at least halve the correction.
_REFINEMENTS = 10
# A correction of so many roundings is the last one: what it leaves is smaller still.
_ROUNDING_UNITS = 1e3
# A larger error than this leaves the signs open.
_ACCURATE = 1e-8
# Signs are wrong beyond so many roundings, or beyond the corrections that are left.
_SIGN_UNITS = 1e3


class Refined(NamedTuple):
    """Solutions on active sets.

    Attributes:
        at: The points; multipliers of rounding are zero.
        error: The last correction, relative to the sizes of unknowns and multipliers, `(batch,)`.
        leaves: Active inequalities with a multiplier below zero, `(batch, m)`.
        joins: Other inequalities that are violated, `(batch, m)`.
        met: True where equations and active inequalities hold, `(batch,)`.
    """

    at: Point
    error: Tensor
    leaves: Tensor
    joins: Tensor
    met: Tensor

    @property
    def optimal(self) -> Tensor:
        """True where all signs are right: such a point is a minimiser, `(batch,)`."""
        return self.met & ~(self.leaves | self.joins).any(dim=1) & (self.error <= _ACCURATE)


def refined(programme: Programme, active: Tensor, start: Point, solve: Solve) -> Refined:
    """The solutions with the inequalities of a mask, `(batch, m)`, as equations, from points near them."""
    at = start._replace(inequality=torch.where(active, start.inequality, 0.0))
    primal, dual = (torch.where(size > 0, size, 1.0) for size in sizes_at(programme, at))
    error = torch.full_like(primal, torch.inf)
    rounding = _ROUNDING_UNITS * torch.finfo(primal.dtype).eps
    for _ in range(_REFINEMENTS):
        slack = torch.where(active, slack_at(programme, at), 0.0)
        change = solve(-gradient_at(programme, at), -equations_at(programme, at), slack)
        at = Point(*(old + new for old, new in zip(at, change, strict=True)))
        multipliers = torch.maximum(largest(change.equality), largest(change.inequality)) / dual
        before, error = error, torch.maximum(largest(change.z) / primal, multipliers)
        if not bool(((error > rounding) & (error < 0.5 * before)).any()):
            break
    primal, dual = sizes_at(programme, at)
    units = _SIGN_UNITS * torch.finfo(primal.dtype).eps + error
    leaves = active & (at.inequality < -units * dual)
    slack = slack_at(programme, at)
    joins = ~active & (slack < -units * primal)
    off = torch.maximum(
        largest(equations_at(programme, at)), largest(torch.where(active, slack, 0.0))
    )
    # A multiplier of rounding is that of an inequality which is hardly active.
    zero = at.inequality.abs() <= units * dual
    at = at._replace(inequality=torch.where(zero, 0.0, at.inequality))
    return Refined(at, error.squeeze(1), leaves, joins, (off <= units * primal).squeeze(1))
