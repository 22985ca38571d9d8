"""A small equilibrium network that predicts the next character."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from ... import ImplicitLayer, Solver, Stopping
from ...implicit import Gradient


class Cell(nn.Module):
    """Cell `z ↦ tanh(W z + b + x)`, a contraction in `z` with constant `‖W‖₂` since `|tanh′| ≤ 1`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)
        nn.init.orthogonal_(self.linear.weight, gain=0.5)
        nn.init.zeros_(self.linear.bias)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """The next iterate."""
        return torch.tanh(self.linear(z) + x)

    @torch.no_grad()
    def contraction(self) -> float:
        """`‖W‖₂`, which bounds the norm of the cell's Jacobian everywhere."""
        return float(torch.linalg.matrix_norm(self.linear.weight, 2))

    @torch.no_grad()
    def project(self, limit: float) -> None:
        """Shrink the weights to `‖W‖₂ ≤ limit`, so that the fixed point exists and is unique."""
        norm = torch.linalg.matrix_norm(self.linear.weight, 2)
        self.linear.weight.mul_((limit / norm).clamp(max=1.0))


class EquilibriumNetwork(nn.Module):
    """Network that injects embedded characters into `z = cell(z, x)`, and predicts from the solution.

    Args:
        symbols: Size of the alphabet.
        context: Number of characters that it sees.
        embedding: Size of a character's embedding.
        size: Size of `z`.
        stopping: Stopping rule of the equation.
    """

    def __init__(
        self,
        symbols: int,
        context: int,
        embedding: int,
        size: int,
        stopping: Stopping | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        # Normalised, so that no input saturates the cell and makes the equation trivial.
        self.injection = nn.Sequential(
            nn.Linear(context * embedding, size), nn.LayerNorm(size, elementwise_affine=False)
        )
        self.equilibrium = ImplicitLayer(Cell(size), stopping=stopping)
        self.head = nn.Linear(size, symbols)

    @property
    def cell(self) -> Cell:
        cell = self.equilibrium.f
        assert isinstance(cell, Cell)  # for the type checker: `f` may be any callable
        return cell

    def embed(self, characters: Tensor) -> Tensor:
        """Codes `(batch, context)` to `(batch, context · embedding)`."""
        return self.embedding(characters).flatten(1)

    def predict(self, embedded: Tensor) -> Tensor:
        """Logits of the next character, `(batch, symbols)`."""
        return self.head(self.equilibrium(self.injection(embedded)))

    def forward(self, characters: Tensor) -> Tensor:
        """Codes `(batch, context)` to logits `(batch, symbols)`."""
        return self.predict(self.embed(characters))

    def solved_by(
        self,
        solver: Solver,
        stopping: Stopping,
        gradient: Gradient | None = None,
        on_failure: Literal["raise", "warn", "accept"] = "raise",
        trace: bool = False,
    ) -> EquilibriumNetwork:
        """A copy with the same weights whose equation is solved and differentiated another way."""
        other = copy.deepcopy(self)
        other.equilibrium = ImplicitLayer(
            other.cell,
            solver=solver,
            stopping=stopping,
            gradient=gradient,
            on_failure=on_failure,
            trace=trace,
        )
        return other
