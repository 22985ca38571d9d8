"""The point at which a linear equation was derived, by which the units of its unknowns are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DerivedAt:
    """A solution `z` of another equation, at which this linear one was derived.

    Attributes:
        solution: `z`, `(batch, n)`.
        transposed: The equation is an adjoint: its matrix is the transposed Jacobian.
        sizes: Gives the sizes of unknowns; of the two parts of a complex number it is the modulus.
    """

    solution: Tensor
    transposed: bool
    sizes: Callable[[Tensor], Tensor] = torch.abs

    @property
    def size(self) -> Tensor:
        """The sizes `|z|`: units of the unknowns of a tangent, and reciprocals of the units of an adjoint's
        equations. They are computed where they are asked for, and not held beside the solution.
        """
        return self.sizes(self.solution)
