"""Solutions of a batch of programmes, with what is known of them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .point import Point


class Minimisers(NamedTuple):
    """Solutions of a batch of programmes.

    Attributes:
        at: The points.
        error: Their errors, relative to the largest of the unknowns and of the multipliers, `(batch,)`.
        settled: True where the conditions of a minimiser hold to rounding, `(batch,)`.
    """

    at: Point
    error: Tensor
    settled: Tensor

    def take(self, rows: Tensor) -> Minimisers:
        """The solutions of some programmes."""
        return Minimisers(self.at.take(rows), self.error[rows], self.settled[rows])

    def put(self, rows: Tensor, some: Minimisers) -> Minimisers:
        """The solutions with those of some programmes replaced."""
        return Minimisers(
            self.at.put(rows, some.at),
            self.error.index_copy(0, rows, some.error),
            self.settled.index_copy(0, rows, some.settled),
        )
