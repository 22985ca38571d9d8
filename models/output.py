"""Output of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..solvers import Solution
from .memory import Memory


@dataclass(frozen=True)
class Piece:
    """States of consecutive positions, and the map that they are a fixed point of.

    Attributes:
        value: The states, `(batch, time, state)`, with their graph.
        function: The map `z ↦ f(z)` of this pass, with weights, masks and injection filled in,
            differentiable in them.
        solution: The solution of the solve, detached; `None` without a solve. The backward pass fills
            `solution.adjoints`.

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
        hidden: Features that the vocabulary predicts the next tokens from, `(batch, time, features)`.
        memory: Memory for the tokens that follow.
        states: The states at all positions, `(batch, time, state)`, with their graph.
        pieces: The states with their map, for each subsequence; empty for stacked layers, which have
            separate maps.

    Examples:
        >>> import torch
        >>> from implicitly.models import Memory
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
        """The solution of each solve; empty at a finite depth."""
        return tuple(piece.solution for piece in self.pieces if piece.solution is not None)

    @property
    def converged(self) -> bool:
        """True if every system of every solve has converged."""
        return all(bool(solution.converged.all()) for solution in self.solutions)

    @property
    def evaluations(self) -> int:
        """Evaluations of the cell in the forward pass."""
        return sum(solution.evaluations for solution in self.solutions)
