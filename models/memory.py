"""Memory of a sequence model: the end of the text it has read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Memory(NamedTuple):
    """Last states and inputs of the text so far, constant for derivatives.

    States and the inputs injected with them belong together, and are kept and detached together.

    Attributes:
        states: States at the last positions, `(batch, positions, state)`, for each layer with separate
            weights; one tensor for an equilibrium.
        inputs: Inputs at these positions, `(batch, positions, features)`.

    Examples:
        >>> import torch
        >>> memory = Memory((torch.zeros(2, 5, 3),), torch.zeros(2, 5, 4))
        >>> memory.batch, memory.rows(torch.tensor([1])).batch
        (2, 1)
    """

    states: tuple[Tensor, ...]
    inputs: Tensor

    @property
    def batch(self) -> int:
        """Number of sequences."""
        return self.inputs.shape[0]

    def detach(self) -> Memory:
        """The same memory without graph."""
        return Memory(tuple(state.detach() for state in self.states), self.inputs.detach())

    def rows(self, index: Tensor) -> Memory:
        """The memory of some of the sequences."""
        return Memory(
            tuple(state.index_select(0, index) for state in self.states),
            self.inputs.index_select(0, index),
        )

    def extended(self, levels: Sequence[Tensor], inputs: Tensor, kept: int) -> Memory:
        """The last `kept` positions of this memory followed by others, constant.

        Args:
            levels: States of the further positions, one tensor for each of `states`.
            inputs: Inputs of the further positions.
            kept: Positions to keep.
        """

        def joined(before: Tensor, now: Tensor) -> Tensor:
            return torch.cat((before, now.detach().to(before.dtype)), dim=1)

        states = tuple(joined(*pair) for pair in zip(self.states, levels, strict=True))
        return Memory(states, joined(self.inputs, inputs)).last(kept)

    def last(self, kept: int) -> Memory:
        """The last `kept` positions, or all if there are fewer."""

        def end(x: Tensor) -> Tensor:
            return x[:, max(x.shape[1] - kept, 0) :]

        return Memory(tuple(map(end, self.states)), end(self.inputs))
