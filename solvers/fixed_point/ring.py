"""Past moves of an extrapolating solver, in storage that is written in turn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor


class Slot(NamedTuple):
    """Views of one row of a ring."""

    residual: Tensor
    target: Tensor
    weight: Tensor
    right: Tensor
    """The right-hand side of the equations while the slot holds the current point."""


@dataclass
class Ring:
    """The current point and what the points before it changed, in `memory + 1` slots.

    The slot of the current point holds `r` and `z + βr`, where a plain step would go. When the next
    point comes, their changes are all that is left of them.
    """

    residuals: Tensor
    """`r` and past changes `−δr`, `(batch, slots, n)`."""
    targets: Tensor
    """`z + βr` and its past changes, with the same sign, alike."""
    weights: Tensor
    """What an equation is multiplied by, `(batch, 1, slots)`: zero for the current point and for what
    is forgotten."""
    floor: Tensor
    """The identity times a number beside which no equation in use is small."""

    # Views are made once: on small systems they would cost as much as the arithmetic.
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
        """Where point number `count` has its place."""
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
        """With storage of its own for what is written."""
        return Ring(self.residuals.clone(), self.targets.clone(), self.weights.clone(), self.floor)
