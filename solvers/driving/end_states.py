"""The state in which each system of a solve has ended, and the inverse Jacobian that it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..interface.state import map_tensors


@dataclass
class EndStates:
    """States of systems that ended at different steps, each as it was at the end of its own.

    Attributes:
        parts: The numbers of systems that ended together, and their state.
    """

    parts: list[tuple[Tensor, Any]] = field(default_factory=list)

    def take(self, state: Any, systems: Tensor, rows: Tensor) -> None:
        """Store rows `rows` of `state` as the final states of `systems`."""
        if len(systems) > 0:
            self.parts.append(
                (systems, map_tensors(lambda tensor: tensor.index_select(0, rows), state))
            )

    def inverse(self, r: Tensor, *, transpose: bool) -> Tensor:
        """`H r` or `Hᵀ r` of all systems, `(batch, n)`, where the states have that product."""
        result = r.new_zeros(r.shape)
        for systems, state in self.parts:
            product = state.inverse_transpose if transpose else state.inverse
            result.index_copy_(0, systems, product(r.index_select(0, systems)))
        return result
