"""Output of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..solvers import Solution
from .memory import Memory


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
