"""Layers whose gradients are right or wrong for a known reason, written without the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def wanted(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A tensor that requires gradients."""
    return draw(*shape, seed=seed, dtype=dtype).requires_grad_()


def weight(n: int, norm: float = 0.6, seed: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    w = draw(n, n, seed=seed)
    return (norm * w / torch.linalg.matrix_norm(w, 2)).to(dtype).requires_grad_()


def function(
    forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """An autograd function from its value and its product with the transposed Jacobian."""

    class Written(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return backward(x, cotangents[0])

    return Written.apply
