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
class Solved:
    """One equation that a forward pass has solved.

    Attributes:
        solution: How the solve ended, detached; `solution.adjoints` is filled by the backward pass.
        function: The fixed-point map `z ↦ f(z)` of this pass, with weights, masks and injection
            filled in, differentiable in them.
        value: The states found, `(batch, time, state)`, with their graph.

    Examples:
        >>> import implicitly, torch
        >>> solution = implicitly.fixed_point(torch.cos, torch.ones(1, 1, 1))
        >>> bool(Solved(solution.detach(), torch.cos, solution.value).solution.converged.all())
        True
    """

    solution: Solution
    function: Callable[[Tensor], Tensor]
    value: Tensor


@dataclass(frozen=True)
class Output:
    """The result of a forward pass.

    Attributes:
        hidden: What the vocabulary predicts the next tokens from, `(batch, time, features)`.
        memory: To be given with the tokens that follow.
        states: The states at all positions, `(batch, time, state)`, with their graph.
        solved: The equations that were solved, one for each subsequence; none at a finite depth.

    Examples:
        >>> import torch
        >>> z = torch.zeros(2, 5, 3)
        >>> Output(z, Memory((z,), z), z, ()).converged
        True
    """

    hidden: Tensor
    memory: Memory
    states: Tensor
    solved: tuple[Solved, ...]

    @property
    def solutions(self) -> tuple[Solution, ...]:
        """How each of the solves has ended."""
        return tuple(solved.solution for solved in self.solved)

    @property
    def converged(self) -> bool:
        """Whether every system of every solve has met its tolerance."""
        return all(bool(solution.converged.all()) for solution in self.solutions)

    @property
    def evaluations(self) -> int:
        """Evaluations of the cell in the forward pass."""
        return sum(solution.evaluations for solution in self.solutions)
