"""The point at which a linear equation was derived, by which the units of its unknowns are known."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DerivedAt:
    """A solution `z` of another equation, at which this linear one was derived.

    Attributes:
        size: The sizes `|z|`, `(batch, n)`: units of the unknowns of a tangent, and reciprocals of the units
            of the equations of an adjoint.
        transposed: The equation is an adjoint: its matrix is the transposed Jacobian.
    """

    size: Tensor
    transposed: bool
