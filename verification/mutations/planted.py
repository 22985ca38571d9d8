"""Implicit layer written by hand, with places for a planted bug.

The layer is a typical autograd function: it solves the equation without a graph, and its backward pass
solves `Aᵀ u = w`, `A = ∂F/∂z`, and returns `−(∂F/∂x)ᵀ u`. A `Recipe` replaces any step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .families import Family

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Backward:
    """Data of a backward pass.

    Attributes:
        family: The equation.
        z: The solution, `(batch, ...)`.
        x: The input.
        parameters: Parameters of the equation.
        w: The cotangent.
    """

    family: Family
    z: Tensor
    x: Tensor
    parameters: Tensors
    w: Tensor

    def jacobian(self, z: Tensor | None = None) -> Tensor:
        """`J = I − ∂F/∂z` of every row, `(batch, n, n)`."""
        at = self.z if z is None else z
        axes = (0, 0, *[None] * len(self.parameters))
        derivative = torch.vmap(torch.func.jacrev(self.family.residual), in_dims=axes)
        matrices = derivative(at, self.x, *self.parameters)
        batch, n = at.shape[0], at[0].numel()
        return torch.eye(n, dtype=at.dtype) - matrices.reshape(batch, n, n)

    def flat(self, tensor: Tensor) -> Tensor:
        """Rows as columns, `(batch, n, 1)`."""
        return tensor.reshape(tensor.shape[0], -1, 1)

    def solve(self, J: Tensor, w: Tensor) -> Tensor:
        """`(I − J)⁻ᵀ w`."""
        n = J.shape[-1]
        matrix = torch.eye(n, dtype=J.dtype) - J.mT
        return torch.linalg.solve(matrix, self.flat(w)).reshape(w.shape)

    def pull(self, u: Tensor, z: Tensor | None = None) -> Tensors:
        """`−(∂F/∂(x, *parameters))ᵀ u`."""
        at = self.z if z is None else z

        def argument(*tensors: Tensor) -> Tensor:
            return -self.family.residual(at, *tensors)

        return torch.func.vjp(argument, self.x, *self.parameters)[1](u)


Adjoint = Callable[[Backward], Tensor]
Pull = Callable[[Backward, Tensor], Tensors]


def exact_adjoint(backward: Backward) -> Tensor:
    """The right adjoint."""
    return backward.solve(backward.jacobian(), backward.w)


def exact_pull(backward: Backward, u: Tensor) -> Tensors:
    """The right gradients."""
    return backward.pull(u)


@dataclass(frozen=True)
class Recipe:
    """Steps of a backward pass.

    Attributes:
        adjoint: Computes `u`.
        pull: Computes the gradients from `u`.
    """

    adjoint: Adjoint = exact_adjoint
    pull: Pull = exact_pull


class _Planted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, family: Family, recipe: Recipe, x: Tensor, *parameters: Tensor) -> Tensor:
        z = family.solve(x, *parameters)
        ctx.family, ctx.recipe = family, recipe
        ctx.save_for_backward(z, x, *parameters)
        return z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        z, x, *parameters = ctx.saved_tensors
        backward = Backward(ctx.family, z, x, tuple(parameters), cotangents[0])
        return (None, None, *ctx.recipe.pull(backward, ctx.recipe.adjoint(backward)))


def planted(family: Family, recipe: Recipe) -> Callable[..., Tensor]:
    """The layer `(x, *parameters) ↦ z` whose backward pass follows a recipe.

    Examples:
        >>> import torch
        >>> from implicitly.verification.mutations.families import FAMILIES
        >>> family = FAMILIES["tanh"]
        >>> x, *parameters = family.make(2, 3, torch.Generator().manual_seed(0))
        >>> planted(family, Recipe())(x.requires_grad_(), *parameters).requires_grad
        True
    """
    return lambda x, *parameters: _Planted.apply(family, recipe, x, *parameters)
