"""Conjugate gradients for a batch of symmetric definite linear systems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..interface.problem import Problem
from ..interface.solution import Status
from .preconditioned import Preconditioned
from .rows import dot, norm, ratio


@dataclass
class CGState:
    """Iterate, recursion, and the last product, with which the next one is compared."""

    z: Tensor
    residual: Tensor
    """The residual by recursion."""
    preconditioned: Tensor
    """`M⁻¹ r`."""
    correlation: Tensor
    """`⟨r, M⁻¹ r⟩`, `(batch, 1)`."""
    direction: Tensor
    """The last direction; zero before the first step."""
    product: Tensor
    """The operator applied to it."""
    ratio: Tensor
    """Coefficient `β` of the last direction in the next, `(batch, 1)`."""
    sign: Tensor
    """The sign of the operator, `(batch, 1)`; 0 before the first step."""
    scale: Tensor
    """The largest `‖A p‖ / ‖p‖` so far, `(batch, 1)`."""
    end_status: Tensor


@dataclass(frozen=True)
class CG(Preconditioned):
    """Conjugate gradients: one product a step in six vectors, for symmetric definite operators.

    The operator `A = ∂r/∂z` may be positive or negative definite (that of a fixed point whose map is a
    symmetric contraction is negative). Each step compares `⟨p₋, A p⟩` with `⟨p, A p₋⟩` for the last
    two directions, which costs no product. A system ends with `LINEAR_SOLVE_FAILED` where these differ in
    more than half of the digits (`A` is not symmetric) or where the sign of `⟨p, A p⟩` changes (`A` is
    not definite). A solution counts only if its true residual confirms it.

    Attributes:
        preconditioner: `v ↦ M⁻¹v` on flat `(batch, n)` tensors, symmetric and definite like the
            operator `∂r/∂z`, whose inverse it approximates.

    Raises:
        TypeError: `preconditioner` cannot be called.

    Source: Hestenes & Stiefel 1952; Saad 2003, algorithm 9.1 (preconditioned).

    Examples:
        >>> import torch, implicitly
        >>> matrix = torch.tensor([[4.0, 1.0], [1.0, 5.0]])
        >>> right = torch.tensor([6.0, 11.0])
        >>> F = lambda z: matrix @ z - right
        >>> z = implicitly.root(F, torch.zeros(2), solver=implicitly.CG(), linear=True).value
        >>> [round(entry, 4) for entry in z.tolist()]
        [1.0, 2.0]
    """

    preconditioner: Callable[[Tensor], Tensor] | None = None
    needs: ClassVar[str] = "products"
    suits: ClassVar[str] = "symmetric definite operators: potentials"
    linear_only: ClassVar[bool] = True
    confirm_residual: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 1000

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> CGState:
        preconditioned = self._precondition(residual)
        none = torch.zeros_like(residual)
        zero = residual.new_zeros(residual.shape[0], 1)
        correlation = dot(residual, preconditioned)
        return CGState(
            z, residual, preconditioned, correlation, none, none, zero, zero, zero, zero.squeeze(1)
        )

    def step(self, problem: Problem, state: CGState) -> CGState:
        # With r the residual and A its operator, the equation for the move s is A s = −r.
        direction = state.preconditioned + state.ratio * state.direction
        product = problem.apply(direction)
        length, before = norm(direction), norm(state.direction)
        scale = torch.maximum(state.scale, ratio(norm(product), length))

        eps = torch.finfo(problem.precision or direction.dtype).eps
        half_of_the_digits = eps**0.5
        difference = dot(state.direction, product) - dot(direction, state.product)
        asymmetric = difference.abs() > half_of_the_digits * scale * length * before

        curvature = dot(direction, product)
        usable = curvature.abs() > eps * scale * length * length
        sign = torch.where(usable, curvature.sign(), state.sign)
        # A definite operator has |⟨p, A p⟩| ≥ ‖A p‖² / ‖A‖: it vanishes in the null space only.
        null = norm(product) <= 10 * half_of_the_digits * scale * length
        indefinite = (sign * state.sign < 0) | ~(usable | null)

        alpha = torch.where(usable, ratio(state.correlation, curvature), 0.0)
        z = state.z - alpha * direction
        residual = state.residual - alpha * product
        preconditioned = self._precondition(residual)
        correlation = dot(residual, preconditioned)
        end_status = (asymmetric | indefinite).squeeze(1)
        return CGState(
            z,
            residual,
            preconditioned,
            correlation,
            direction,
            product,
            ratio(correlation, state.correlation),
            sign,
            scale,
            torch.where(end_status, int(Status.LINEAR_SOLVE_FAILED), 0),
        )
