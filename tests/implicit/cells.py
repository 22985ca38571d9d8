"""A cell with dropout and normalisation, and its gradient by dense algebra."""

import torch
from implicitly import (
    Stopping,
)
from oracle import implicit_gradient
from torch import Tensor, nn

TIGHT = Stopping(rtol=1e-12)


class Cell(nn.Module):
    """A contraction with optional dropout and batch normalisation."""

    def __init__(self, size: int = 4, dropout: float = 0.0, normalise: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size, dtype=torch.float64)
        nn.init.orthogonal_(self.linear.weight, gain=0.5)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(size, dtype=torch.float64) if normalise else nn.Identity()

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.dropout(self.linear(z)) + self.norm(x))


def inputs(systems: int = 5, size: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(systems, size, generator=generator, dtype=torch.float64)


def dense_gradient(cell: Cell, z: Tensor, x: Tensor) -> Tensor:
    """d(Σz)/dx by the implicit function theorem with dense algebra, at a given mask."""
    return implicit_gradient(cell, z, x, torch.ones_like(z))
