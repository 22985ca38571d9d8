"""Entries of the registry of ordinary layers, and functions with a hand-written backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Made = tuple[Callable[..., Any], tuple[Any, ...]]
Kind = Literal["wrong", "right", "doubtful"]
FLOATS = (torch.float64, torch.float32, torch.bfloat16)
WIDE = (torch.float64, torch.float32)
DOUBLE = (torch.float64,)


@dataclass(frozen=True)
class Ordinary:
    """A layer as it is met in practice, without an equation.

    Attributes:
        name: Description of the layer, or of its mistake.
        kind: `"wrong"`, `"right"`, or `"doubtful"` for a point without a derivative.
        build: Returns the layer and its inputs in a dtype; random numbers come from torch's state.
        dtypes: Dtypes in which it is examined.
        cause: Part of the expected diagnosis.
        full: True if only `effort="full"` can find the mistake.
    """

    name: str
    kind: Kind
    build: Callable[[torch.dtype], Made]
    dtypes: tuple[torch.dtype, ...] = WIDE
    cause: str = ""
    full: bool = False

    def make(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Made:
        """The layer and its inputs.

        Examples:
            >>> entry = Ordinary("sine", "right", lambda dtype: (torch.sin, (drawn(2, dtype=dtype),)))
            >>> entry.make()[1][0].shape
            torch.Size([2])
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build(dtype)


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    """Gaussian numbers that require gradients; complex ones for complex dtypes."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, dtype=wide).to(dtype).requires_grad_()


def positive(*shape: int, dtype: torch.dtype) -> Tensor:
    """Numbers between 0.5 and 1.5 that require gradients."""
    return (0.5 + torch.rand(shape, dtype=torch.float64)).to(dtype).requires_grad_()


def regular(*shape: int, dtype: torch.dtype) -> Tensor:
    """Square matrices near twice the identity that require gradients."""
    n = shape[-1]
    A = torch.randn(*shape, dtype=torch.float64) / n
    return (A + 2 * torch.eye(n, dtype=torch.float64)).to(dtype).requires_grad_()


def written(forward: Callable[..., Tensor], backward: Callable[..., Any]) -> Callable[..., Tensor]:
    """An autograd function from its value and its gradients.

    Args:
        forward: Called with the inputs.
        backward: Called with the cotangent, the output and the inputs.

    Examples:
        >>> sine = written(torch.sin, lambda g, y, x: g * x.cos())
        >>> x = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(sine(x), x)[0].item()
        1.0
    """

    class Written(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            y = forward(*inputs)
            ctx.save_for_backward(y, *inputs)
            return y

        @staticmethod
        def backward(ctx: Any, *cotangents: Tensor) -> Any:
            return backward(cotangents[0], *ctx.saved_tensors)

    return Written.apply


def passed(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The identity with a changed backward pass.

    Examples:
        >>> x = torch.ones(1, requires_grad=True)
        >>> torch.autograd.grad(passed(lambda g: 2 * g)(x), x)[0].item()
        2.0
    """
    return written(lambda x: x.view_as(x), lambda g, y, x: change(g))


def tampered(
    forward: Callable[..., Tensor], change: Callable[[list[Tensor]], list[Tensor]]
) -> Callable[..., Tensor]:
    """A function whose right gradients are changed afterwards.

    Examples:
        >>> wrong = tampered(torch.sin, lambda gradients: [1.5 * g for g in gradients])
        >>> x = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(wrong(x), x)[0].item()
        1.5
    """

    def backward(g: Tensor, y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in inputs]
            found = torch.autograd.grad(forward(*leaves), leaves, g)
        return tuple(change(list(found)))

    return written(forward, backward)
