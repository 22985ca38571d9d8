"""BiCGStab: short recurrences for a batch of unsymmetric linear systems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..interface.problem import Problem
from .preconditioned import Preconditioned
from .rows import dot, norm, ratio


@dataclass
class BiCGStabState:
    """Iterate and vectors of the recursion."""

    z: Tensor
    residual: Tensor
    """The residual by recursion."""
    shadow: Tensor
    direction: Tensor
    correlation: Tensor
    """`⟨shadow, residual⟩`, `(batch, 1)`."""


@dataclass(frozen=True)
class BiCGStab(Preconditioned):
    """Stabilised biconjugate gradients with right preconditioning: seven vectors, whatever the steps.

    One step makes two products with the operator. A system whose recursion breaks down (a correlation
    vanishes to rounding) restarts from its current residual.

    Attributes:
        preconditioner: `v ↦ M⁻¹v` on flat `(batch, n)` tensors, an approximate inverse of the
            operator `∂r/∂z`.

    Raises:
        TypeError: `preconditioner` cannot be called.

    Source: van der Vorst 1992; Saad 2003, algorithm 7.7.

    Examples:
        >>> import torch, implicitly
        >>> matrix = torch.tensor([[4.0, 1.0], [2.0, 5.0]])
        >>> right = torch.tensor([6.0, 12.0])
        >>> solver = implicitly.BiCGStab()
        >>> F = lambda z: matrix @ z - right
        >>> z = implicitly.root(F, torch.zeros(2), solver=solver, linear=True).value
        >>> [round(entry, 4) for entry in z.tolist()]
        [1.0, 2.0]
    """

    preconditioner: Callable[[Tensor], Tensor] | None = None
    needs: ClassVar[str] = "products"
    suits: ClassVar[str] = "large systems, with few vectors stored"
    linear_only: ClassVar[bool] = True
    confirm_residual: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 1000

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> BiCGStabState:
        return BiCGStabState(z, residual, residual, residual, dot(residual, residual))

    def step(self, problem: Problem, state: BiCGStabState) -> BiCGStabState:
        # With r the residual and A its operator, the equation for the move s is A s = −r.
        r, shadow, direction = state.residual, state.shadow, state.direction
        move = self._precondition(direction)
        product = problem.apply(move)
        alpha = ratio(state.correlation, dot(shadow, product))
        half = r - alpha * product
        half_move = self._precondition(half)
        half_product = problem.apply(half_move)
        omega = ratio(dot(half_product, half), dot(half_product, half_product))
        z = state.z - alpha * move - omega * half_move
        residual = half - omega * half_product

        correlation = dot(shadow, residual)
        smallest = torch.finfo(r.dtype).eps * (norm(shadow) * norm(residual))
        broken = correlation.abs() <= smallest
        beta = ratio(correlation, state.correlation) * ratio(alpha, omega)
        direction = residual + beta * (direction - omega * product)
        return BiCGStabState(
            z,
            residual,
            torch.where(broken, residual, shadow),
            torch.where(broken, residual, direction),
            torch.where(broken, dot(residual, residual), correlation),
        )
