"""Layers with right first and wrong second derivatives, and one with both right.

A Newton step from the root, recorded by autograd, has the right first derivative even if parts of it are held
constant. Two steps recorded in full have the right second derivative as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .bugs import Bug, Layer
from .families import Family


def _step(family: Family, z: Tensor, tensors: tuple[Tensor, ...], frozen: bool) -> Tensor:
    axes = (0, 0, *[None] * (len(tensors) - 1))
    jacobian = torch.vmap(torch.func.jacrev(family.residual), in_dims=axes)(z, *tensors)
    batch, n = z.shape[0], z[0].numel()
    matrix = jacobian.reshape(batch, n, n)
    residual = family.residual(z, *tensors).reshape(batch, n, 1)
    return z - torch.linalg.solve(matrix.detach() if frozen else matrix, residual).reshape(z.shape)


def right_twice(family: Family) -> Callable[..., Tensor]:
    """A layer with right first and second derivatives.

    Examples:
        >>> import torch
        >>> from implicitly.verification.mutations.families import FAMILIES
        >>> family = FAMILIES["tanh"]
        >>> tensors = family.make(2, 3, torch.Generator().manual_seed(0))
        >>> z = right_twice(family)(*tensors)
        >>> bool(torch.allclose(z, family.solve(*tensors)))
        True
    """

    def layer(*tensors: Tensor) -> Tensor:
        z = _root(family, tensors)
        for _ in range(2):
            z = _step(family, z, tensors, frozen=False)
        return z

    return layer


def _root(family: Family, tensors: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        return family.solve(*(tensor.detach() for tensor in tensors))


def _one_step(frozen: bool) -> Callable[[Family], Layer]:
    return lambda family: lambda *tensors: _step(family, _root(family, tensors), tensors, frozen)


class _NoGraph(torch.autograd.Function):
    """The right gradient, as a constant."""

    @staticmethod
    def forward(ctx: Any, family: Family, *tensors: Tensor) -> Tensor:
        ctx.family = family
        ctx.save_for_backward(*tensors)
        return _root(family, tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            own = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
            z = _step(ctx.family, _root(ctx.family, tuple(own)), tuple(own), frozen=True)
        return (None, *torch.autograd.grad(z, own, cotangents[0].detach()))


class _Scaled(torch.autograd.Function):
    """The identity, whose backward pass has a factor in its derivative."""

    @staticmethod
    def forward(ctx: Any, factor: float, x: Tensor) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, Tensor]:
        return None, _ScaledBack.apply(ctx.factor, cotangents[0])


class _ScaledBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, factor: float, g: Tensor) -> Tensor:
        ctx.factor = factor
        return g.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, Tensor]:
        return None, ctx.factor * cotangents[0]


def _scaled(factor: float) -> Callable[[Family], Layer]:
    def plant(family: Family) -> Layer:
        right = right_twice(family)
        return lambda *tensors: right(*(_Scaled.apply(factor, tensor) for tensor in tensors))

    return plant


SECOND_ORDER_BUGS: tuple[Bug, ...] = (
    Bug("Jacobian held constant", _one_step(frozen=True), cause=""),
    Bug("solution held constant", _one_step(frozen=False), cause=""),
    Bug("gradient without a graph", lambda f: lambda *t: _NoGraph.apply(f, *t), cause=""),
    Bug("factor 2 in the second derivative", _scaled(2.0), cause=""),
    Bug("factor 1.001 in the second derivative", _scaled(1.001), cause=""),
    Bug("sign of the second derivative", _scaled(-1.0), cause=""),
)
