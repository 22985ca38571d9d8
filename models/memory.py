"""Memory of a sequence model: the end of the text it has read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Memory(NamedTuple):
    """The end of what a model has read, constant for derivatives.

    States and what was injected with them are kept and detached together: neither means anything
    without the other.

    Attributes:
        states: For each layer with weights of its own, the states at the last positions,
            `(batch, positions, state)`; one tensor for an equilibrium.
        inputs: What belongs to these positions of the input, `(batch, positions, features)`.

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
        """The last `kept` positions; all of them if there are no more."""

        def end(x: Tensor) -> Tensor:
            return x[:, max(x.shape[1] - kept, 0) :]

        return Memory(tuple(map(end, self.states)), end(self.inputs))
