"""Time steps of causal equations, as solvers see them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TimeSteps:
    """Places of the time steps of causal systems in their flat `(batch, n)` tensor.

    Either the systems are time steps, those of a sequence one after the other, or each is a whole sequence.

    Attributes:
        length: Time steps of a sequence.
        sizes: Unknowns of a time step in each leaf of the unknown.
        whole: Systems are whole sequences; their leaves follow one another, each with time first.
        reversed: A time step depends on itself and on later ones, as in the adjoint of a causal equation;
            else on itself and on earlier ones.

    Examples:
        >>> import torch
        >>> steps = TimeSteps(length=2, sizes=(1, 2), whole=True)
        >>> steps.split(torch.tensor([[0.0, 10.0, 1.0, 2.0, 11.0, 12.0]])).tolist()
        [[[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]]]
    """

    length: int
    sizes: tuple[int, ...]
    whole: bool = False
    reversed: bool = False

    def split(self, flat: Tensor) -> Tensor:
        """The sequences of flat systems, `(sequences, length, unknowns)`; a view where there is one leaf."""
        if not self.whole or len(self.sizes) == 1:
            sequences = len(flat) if self.whole else len(flat) // self.length
            return flat.reshape(sequences, self.length, sum(self.sizes))
        parts = flat.split([self.length * size for size in self.sizes], dim=1)
        leaves = [part.unflatten(1, (self.length, -1)) for part in parts]
        return torch.cat(leaves, dim=2)

    def join(self, steps: Tensor) -> Tensor:
        """The flat systems of sequences."""
        if not self.whole:
            return steps.flatten(0, 1)
        if len(self.sizes) == 1:
            return steps.flatten(1)
        parts = steps.split(self.sizes, dim=2)
        return torch.cat([part.flatten(1) for part in parts], dim=1)
