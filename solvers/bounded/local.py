"""The equation with bounds near an iterate: values, Jacobian and the units in which a step is judged.

Equations are compared in units of their terms, `Σ_j |J_ij| s_j + |r_i|`, and unknowns in units `s` of their
distance to a bound, so that neither the unit of an equation nor that of an unknown matters, and a
concentration of 1e-14 counts as much as one of 1.

A complementarity problem is the root of `mid(z − l, c F, z − u)`, entry by entry, with `c = 1 / |J_jj|`, so
that both sides have the unit of the unknown. A step of Newton's method for it fixes the unknowns whose bound
it predicts to be active and solves the equations of the others.

Source: Hintermüller, Ito & Kunisch 2003 (the active sets of a semismooth Newton method); Facchinei & Pang
2003, section 1.5 (the mid function); Dennis & Schnabel 1983, section 7.1 (scaling).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..interface.box import Box
from ..interface.problem import Problem
from ..linear.sparse_lu import KnownPattern
from .matrices import Matrices, matrices_of

# A diagonal entry below this part of its row says nothing of the unit of its equation.
_DOMINANT = 1e-3
# A step that leaves this part of the distance to the bound it goes to has been rounded.
_ARRIVED = 1e-3


@dataclass(frozen=True)
class Local:
    """The equation near an iterate, weighted and scaled.

    Attributes:
        z: The iterate, `(batch, n)`.
        value: The weighted left side of the equation there.
        matrix: Its Jacobian in scaled unknowns.
        weights: One over the units of the equations.
        scale: Units of the unknowns.
        side: `c` of a complementarity problem; `None` for a root.
        box: The bounds.
        target: The bounds that a step of a complementarity problem goes to; NaN for others.
    """

    z: Tensor
    value: Tensor
    matrix: Matrices
    weights: Tensor
    scale: Tensor
    side: Tensor | None
    box: Box
    target: Tensor

    @staticmethod
    def of(problem: Problem, z: Tensor, known: KnownPattern) -> Local:
        """The equation near `z`; one evaluation and a Jacobian, a sparse one by the `known` pattern."""
        box = box_of(problem, z)
        linearization = (problem.unreduced or problem).linearization(z)
        assert linearization.residual is not None  # for the type checker: the problem is not linear
        value = -linearization.residual
        matrix = matrices_of(problem, linearization, z, known)
        scale, side, target = _units(box, z), None, torch.full_like(z, torch.nan)
        if problem.unreduced is not None:
            side = _side(matrix, scale)
            below, above = _predicted(box, z, side * value)
            target = torch.where(below, box.lower, torch.where(above, box.upper, target))
            matrix = matrix.scaled(side).or_identity(below | above)
            value = _mid(box, z, side * value)
        sizes = matrix.sums(scale) + value.abs()
        sizes = torch.where((sizes > 0) & torch.isfinite(sizes), sizes, 1.0)
        weights = 1.0 / sizes
        scaled = matrix.scaled(weights, scale)
        return Local(z, weights * value, scaled, weights, scale, side, box, target)

    @property
    def norm(self) -> Tensor:
        """The norm at the iterate, `(batch,)`."""
        return torch.linalg.vector_norm(self.value, dim=1)

    def norm_at(self, z: Tensor, value: Tensor) -> Tensor:
        """The norm at another point, where `F` has the given value."""
        if self.side is not None:
            value = _mid(self.box, z, self.side * value)
        return torch.linalg.vector_norm(self.weights * value, dim=1)

    def towards(self, y: Tensor, fraction: float) -> Tensor:
        """The point that a scaled step leads to, within the bounds."""
        if self.side is None:
            return self.box.towards(self.z, self.scale * y, fraction)
        there = self.box.towards(self.z, self.scale * y, 1.0)
        # Beside its bound by a rounding, an unknown would have another equation than on it.
        left = (self.z - self.target).abs()
        arrived = (left == 0) | ((there - self.target).abs() <= _ARRIVED * left)
        return torch.where(arrived, self.target, there)


def box_of(problem: Problem, z: Tensor) -> Box:
    """The bounds of a problem, infinite where it has none."""
    if problem.box is not None:
        return problem.box
    return Box(torch.full_like(z, -torch.inf), torch.full_like(z, torch.inf))


def value_of(problem: Problem, z: Tensor) -> Tensor:
    """`F` at a point, or `z − f(z)` of a fixed point; one evaluation."""
    return -(problem.unreduced or problem).residual(z)


def residual_of(problem: Problem, z: Tensor, value: Tensor) -> Tensor:
    """The residual of the problem from the value of `F`."""
    if problem.unreduced is None:
        return -value
    return -box_of(problem, z).reduced(z, value)


def _units(box: Box, z: Tensor) -> Tensor:
    room, size = box.room(z), z.abs()
    size = torch.where(size > 0, size, 1.0)
    return torch.where(torch.isfinite(room) & (room > 0), room, size)


def _side(matrix: Matrices, scale: Tensor) -> Tensor:
    diagonal = matrix.diagonal().abs()
    largest = matrix.largest(scale) / scale
    unit = torch.where(diagonal > _DOMINANT * largest, diagonal, largest)
    return 1.0 / torch.where((unit > 0) & torch.isfinite(unit), unit, 1.0)


def _predicted(box: Box, z: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The unknowns whose lower bound, and whose upper bound is predicted to be active."""
    return z - box.lower < value, z - box.upper > value


def _mid(box: Box, z: Tensor, value: Tensor) -> Tensor:
    below, above = _predicted(box, z, value)
    return torch.where(below, z - box.lower, torch.where(above, z - box.upper, value))
