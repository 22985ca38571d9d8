"""Ring buffer of the past moves of an extrapolating solver."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor


class Slot(NamedTuple):
    """Views of one row of a `Ring`."""

    residual: Tensor
    target: Tensor
    weight: Tensor
    right: Tensor
    """Right-hand side of the equations while the slot holds the current point."""


@dataclass
class Ring:
    """The current point and the changes between the points before it, in `memory + 1` slots.

    The slot of the current point holds `r` and `z + βr`, the result of a plain step. The next point
    replaces both by their changes.
    """

    residuals: Tensor
    """`r` and past changes `−δr`, `(batch, slots, n)`."""
    targets: Tensor
    """`z + βr` and its past changes, with the same sign and shape."""
    weights: Tensor
    """Factors of the equations, `(batch, 1, slots)`: zero for the current point and for dropped moves."""
    floor: Tensor
    """The identity times a number far below every equation in use."""

    # Views are made once: on small systems making them costs as much as the arithmetic.
    @cached_property
    def columns(self) -> Tensor:
        return self.residuals.mT

    @cached_property
    def weight_rows(self) -> Tensor:
        return self.weights.squeeze(1)

    @cached_property
    def _slots(self) -> dict[int, Slot]:
        return {}

    def slot(self, count: int) -> Slot:
        """The slot of point number `count`."""
        index = count % self.residuals.shape[1]
        if index not in self._slots:
            self._slots[index] = Slot(
                self.residuals.select(1, index),
                self.targets.select(1, index),
                self.weights.select(2, index),
                self.floor.narrow(1, index, 1),
            )
        return self._slots[index]

    def copy(self) -> Ring:
        """The same ring with its own storage for all that is written."""
        return Ring(self.residuals.clone(), self.targets.clone(), self.weights.clone(), self.floor)
