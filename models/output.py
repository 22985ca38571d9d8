"""What a model returns, and what it remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..solvers import Solution


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


@dataclass(frozen=True)
class Piece:
    """States of consecutive positions, and the one map that they come from.

    Attributes:
        value: The states, `(batch, time, state)`, with their graph.
        function: The map `z ↦ f(z)` of this pass, with weights, masks and injection filled in,
            differentiable in them.
        solution: How the solve ended, detached, if there was one; `solution.adjoints` is filled by the
            backward pass.

    Examples:
        >>> import implicitly, torch
        >>> solution = implicitly.fixed_point(torch.cos, torch.ones(1, 1, 1))
        >>> piece = Piece(solution.value, torch.cos, solution.detach())
        >>> bool((piece.function(piece.value) - piece.value).abs() < 1e-5)
        True
    """

    value: Tensor
    function: Callable[[Tensor], Tensor]
    solution: Solution | None = None


@dataclass(frozen=True)
class Output:
    """The result of a forward pass.

    Attributes:
        hidden: What the vocabulary predicts the next tokens from, `(batch, time, features)`.
        memory: To be given with the tokens that follow.
        states: The states at all positions, `(batch, time, state)`, with their graph.
        pieces: The states with their map, for each subsequence; none for stacked layers, of which each has
            its own.

    Examples:
        >>> import torch
        >>> z = torch.zeros(2, 5, 3)
        >>> Output(z, Memory((z,), z), z, ()).converged
        True
    """

    hidden: Tensor
    memory: Memory
    states: Tensor
    pieces: tuple[Piece, ...]

    @property
    def solutions(self) -> tuple[Solution, ...]:
        """How each of the solves has ended; none at a finite depth."""
        return tuple(piece.solution for piece in self.pieces if piece.solution is not None)

    @property
    def converged(self) -> bool:
        """Whether every system of every solve has met its tolerance."""
        return all(bool(solution.converged.all()) for solution in self.solutions)

    @property
    def evaluations(self) -> int:
        """Evaluations of the cell in the forward pass."""
        return sum(solution.evaluations for solution in self.solutions)
