"""Cells of equilibrium layers in PyTorch and in JAX, for `side_by_side.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-6


class Tanh(nn.Module):
    """`tanh(W z + x)` with all singular values of `W` alike."""

    def __init__(self, size: int, rate: float) -> None:
        super().__init__()
        self.W = nn.Parameter(nn.init.orthogonal_(torch.empty(size, size), gain=rate))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.W.mT + x)


class MLP(nn.Module):
    """Two layers, the wider of which is inside."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.A = nn.Parameter(nn.init.orthogonal_(torch.empty(2 * size, size), gain=0.7))
        self.W = nn.Parameter(nn.init.orthogonal_(torch.empty(size, 2 * size), gain=0.7))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(torch.relu(z @ self.A.mT + 0.1) @ self.W.mT + x)


class Attention(nn.Module):
    """One head over the unknowns of a sequence, with a residual of the input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.W = nn.Parameter(nn.init.orthogonal_(torch.empty(3 * size, size), gain=0.5))
        self.A = nn.Parameter(nn.init.orthogonal_(torch.empty(size, size), gain=0.5))
        self.size = size

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        q, k, v = (z @ self.W.mT).split(self.size, dim=-1)
        weights = torch.softmax(q @ k.mT / self.size**0.5, dim=-1)
        return torch.tanh((weights @ v) @ self.A.mT + x)


@dataclass(frozen=True)
class Case:
    """A cell with an input; the first axis of the input indexes systems."""

    name: str
    cell: nn.Module
    x: Tensor
    jax: Callable[[Any, Any, Any, Any], Any] | None


@dataclass(frozen=True)
class Contender:
    """A name, a solve, and a solve with gradients; each returns the solution as a tensor or array."""

    name: str
    solve: Callable[[], Any]
    gradient: Callable[[], Any] | None


def weights_of(cell: nn.Module) -> list[Tensor]:
    return list(cell.parameters())


def jax_tanh(z: Any, x: Any, weights: Any, xp: Any) -> Any:
    return xp.tanh(z @ weights[0].T + x)


def jax_mlp(z: Any, x: Any, weights: Any, xp: Any) -> Any:
    return xp.tanh(xp.maximum(z @ weights[0].T + 0.1, 0.0) @ weights[1].T + x)


def jax_attention(z: Any, x: Any, weights: Any, xp: Any) -> Any:
    import jax

    q, k, v = xp.split(z @ weights[0].T, 3, axis=-1)
    scores = q @ xp.swapaxes(k, -1, -2) / q.shape[-1] ** 0.5
    return xp.tanh((jax.nn.softmax(scores, axis=-1) @ v) @ weights[1].T + x)
