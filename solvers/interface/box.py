"""Bounds on the unknowns of flat systems, and the equation that holds where a bound is active.

With bounds `l ≤ z ≤ u` the condition on a function `F`, the gradient of an objective for example, is

    F_j = 0 where l_j < z_j < u_j,    F_j ≥ 0 where z_j = l_j,    F_j ≤ 0 where z_j = u_j

Where a bound holds its unknown back, the equation of that unknown is `z_j − l_j = 0` or `z_j − u_j = 0`: this
*reduced equation* has the root of the problem as its root, and its derivatives as long as the active set
stays what it is.

Source: Facchinei & Pang 2003, sections 1.1 and 1.5 (mixed complementarity); Bertsekas 1982 (active sets).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Beside a bound at zero an unknown is zero below this part of its largest size.
_ZERO = 1e-30


def onto(z: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The nearest point between the bounds; its derivative in `z` is one on the bounds too."""
    return torch.where(z < lower, lower, torch.where(z > upper, upper, z))


def held(z: Tensor, lower: Tensor, upper: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The unknowns that their lower bound, and those that their upper bound holds back."""
    below = (z <= lower) & ((value > 0) | (lower == upper))
    return below, (z >= upper) & (value < 0) & ~below


def reduced(z: Tensor, lower: Tensor, upper: Tensor, value: Tensor) -> Tensor:
    """The left side of the reduced equation, from the value `F` between the bounds."""
    below, above = held(z, lower, upper, value)
    return torch.where(below, z - lower, torch.where(above, z - upper, value))


@dataclass(frozen=True)
class Box:
    """Bounds of flat systems, both `(batch, n)`; infinite where an unknown is free.

    Attributes:
        lower: Lower bounds.
        upper: Upper bounds.

    Examples:
        >>> box = Box(torch.zeros(1, 2), torch.full((1, 2), torch.inf))
        >>> box.onto(torch.tensor([[-1.0, 2.0]])).tolist()
        [[0.0, 2.0]]
    """

    lower: Tensor
    upper: Tensor

    def onto(self, z: Tensor) -> Tensor:
        """The nearest point between the bounds."""
        return onto(z, self.lower, self.upper)

    def towards(self, z: Tensor, move: Tensor, fraction: float) -> Tensor:
        """`z + move`, where each unknown goes at most a fraction of the way to its bound."""
        if fraction == 1.0:
            return self.onto(z + move)
        # An unknown at its bound stays there, or leaves it.
        lowest = self.lower + (1 - fraction) * (z - self.lower)
        highest = self.upper - (1 - fraction) * (self.upper - z)
        lowest = torch.where(torch.isfinite(self.lower), lowest, self.lower)
        highest = torch.where(torch.isfinite(self.upper), highest, self.upper)
        return self.onto(onto(z + move, lowest, highest))

    def size(self, z: Tensor, largest: Tensor) -> Tensor:
        """The size by which an unknown that goes to zero is measured, from its largest one so far.

        Beside a bound at zero powers of ten matter: an unknown there is zero after thirty of them.
        """
        beside = self.room(z) <= z.abs()
        return torch.where(beside & (z.abs() > _ZERO * largest), z.abs(), largest)

    def room(self, z: Tensor) -> Tensor:
        """The distance of each unknown to its nearer bound; infinite where it is free."""
        return torch.minimum(z - self.lower, self.upper - z)

    def held(self, z: Tensor, value: Tensor) -> Tensor:
        """The unknowns that a bound holds back from a root of `F`, whose value is given."""
        below, above = held(z, self.lower, self.upper, value)
        return below | above

    def reduced(self, z: Tensor, value: Tensor) -> Tensor:
        """The left side of the reduced equation."""
        return reduced(z, self.lower, self.upper, value)
