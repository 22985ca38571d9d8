"""Derivatives of minimisers whose Hessian is singular, or is left out in part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from ...solvers import Counts, Solution, SolveError, Status
from ..equations.derived import AdjointEquation, DerivedEquation
from ..equations.differentiation import Product, matrix, pullback, transposed
from ..equations.equation import GivenEquation
from ..equations.layout import Layout, Leaves
from .mode import ImplicitGradient, LinearSolve

# Beyond so many unknowns of a system no matrix is formed.
_MOST_DENSE = 2048
# The power of eps to which conjugate gradients solve an equation.
_ACCURACY = 0.75
# Singular values below so many times n roundings of the largest are zero.
_RANK_UNITS = 8


@dataclass(frozen=True)
class MinimumNorm(ImplicitGradient):
    """Of all derivatives that keep the equation true, the one of minimum norm: `ż = −J⁺ Ḟ`.

    For an equation whose Jacobian is singular, as of least squares with fewer residuals than unknowns, the
    solution is one of many and has no derivative of its own. The pseudo-inverse gives the smallest one; the
    part of a cotangent that only moves along the solutions counts as zero. Where the Jacobian is regular this
    is the implicit function theorem. The dense matrix is formed. Higher derivatives are those of the
    pseudo-inverse, as long as the rank does not change (Golub & Pereyra 1973).

    Source: Golub & Pereyra 1973; Golub & Van Loan 2013, section 5.5.

    Examples:
        >>> import torch, implicitly
        >>> b = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        >>> r = lambda z, b: z.sum().reshape(1) - b
        >>> z0 = torch.zeros(2, dtype=torch.float64)
        >>> z = implicitly.least_squares(r, z0, b, gradient=implicitly.MinimumNorm()).value
        >>> z[0].backward()
        >>> round(b.grad.item(), 6)
        0.5
    """

    exact: ClassVar[bool] = True

    def solve_linear(self, linear: LinearSolve) -> Leaves:
        equation, args = linear.equation, linear.args
        constant = equation.constant(args)
        layout = Layout.of(constant, equation.batch_dims)
        operator = equation.bind(args).operator
        assert operator is not None  # for the type checker: derived equations are affine
        matrices = matrix(_on_flat(operator, layout), layout.flatten(constant))
        if equation.form == "fixed_point":
            matrices = matrices - torch.eye(matrices.shape[-1], dtype=matrices.dtype).to(matrices)
        inverse = _pseudo_inverse(matrices)
        return layout.unflatten(-_times(inverse, layout.flatten(constant)))


@dataclass(frozen=True)
class GaussNewtonApproximation(ImplicitGradient):
    """Approximate: the Hessian of least squares without the curvature of the residuals, `Jᵀ w J`.

    The derivative of the minimiser is exact where the residuals vanish or are linear; else its relative error
    is of the size of `‖Σ r ∇²r‖ / ‖Jᵀ J‖`. It needs no second derivatives in the linear solve, and its
    matrix is never indefinite. A deficient rank gives the derivative of minimum norm. Beyond 2048 unknowns
    without bounds no matrix is formed: conjugate gradients take products `Jᵀ w (J v)`.

    Raises:
        TypeError: The call is not one of `least_squares`.
        SolveError: Conjugate gradients have not converged.

    Source: Gould, Fernando, Cherian, Anderson, Santa Cruz & Guo 2016, section 3 (the exact derivative that
    this simplifies); Nocedal & Wright 2006, section 10.3.

    Examples:
        >>> GaussNewtonApproximation()
        GaussNewtonApproximation()
    """

    def solve_linear(self, linear: LinearSolve) -> Leaves:
        equation, args = linear.equation, linear.args
        parent = equation.parent
        if not isinstance(parent, GivenEquation) or parent.objective is None:
            raise TypeError(_NO_RESIDUALS)
        if not parent.objective.residuals:
            raise TypeError(_NO_RESIDUALS)
        constant = equation.constant(args)
        layout = Layout.of(constant, equation.batch_dims)
        flat = layout.flatten(constant)
        products = _Products.of(parent, equation, args, layout)
        if parent.box is None and flat.shape[1] > _MOST_DENSE:
            return layout.unflatten(-_conjugate_gradients(products.both, flat, parent.described))
        jacobian = products.weighted_jacobians(flat)
        if parent.box is not None:
            matrices = _with_bounds(parent, equation, args, layout, jacobian.mT @ jacobian)
            return layout.unflatten(-_times(_pseudo_inverse(matrices), flat))
        inverse = _pseudo_inverse(jacobian)
        return layout.unflatten(-_times(inverse, _times(inverse.mT, flat)))


_NO_RESIDUALS = (
    "gradient=GaussNewtonApproximation() needs the residuals of least_squares, and this equation has none: "
    "leave gradient out for the exact derivative"
)


@dataclass(frozen=True)
class _Products:
    """Products with the Jacobian of the residuals at the solution, differentiable.

    Attributes:
        value: The residuals, `(batch, m)`.
        back: `u ↦ Jᵀ u`.
        weights: `w`, one for each residual.
    """

    value: Tensor
    back: Product
    weights: Tensor

    @staticmethod
    def of(
        parent: GivenEquation, equation: DerivedEquation, args: Leaves, layout: Layout
    ) -> _Products:
        assert parent.objective is not None  # for the type checker
        z, own = args[: equation.leaves], args[2 * equation.leaves :]
        function, loss = parent.objective_at(own), parent.objective.loss

        def residual(flat: Tensor) -> Leaves:
            value = function(layout.unflatten(flat))[0]
            return (value.reshape(layout.systems, -1).to(layout.dtype),)

        (value,), back = pullback(residual, (layout.flatten(z),))
        weights = torch.ones_like(value) if loss is None else loss.weight_of(value)
        return _Products(value, back, weights)

    @cached_property
    def forward(self) -> Product:
        """`v ↦ J v`."""
        return transposed(self.back, (self.value,))

    def both(self, v: Tensor) -> Tensor:
        """`Jᵀ w (J v)`."""
        return self.back((self.weights * self.forward((v,))[0],))[0]

    def weighted_jacobians(self, like: Tensor) -> Tensor:
        """`√w J`, `(batch, m, n)`, for a tensor like the unknown."""
        if self.value.shape[1] <= like.shape[1]:
            jacobian = matrix(lambda u: self.back((u,))[0], self.value).mT
        else:
            jacobian = matrix(lambda v: self.forward((v,))[0], like)
        return self.weights.sqrt().unsqueeze(2) * jacobian


def _conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, described: str
) -> Tensor:
    """The solution of an equation with a positive semidefinite matrix (Hestenes & Stiefel 1952)."""
    accuracy = torch.finfo(right.dtype).eps ** _ACCURACY
    found, left, direction = torch.zeros_like(right), right, right
    square = (left * left).sum(dim=1, keepdim=True)
    enough = accuracy**2 * square.detach()
    for _ in range(2 * right.shape[1] + 10):
        running = square > enough
        if not bool(running.any()):
            return found
        image = product(direction)
        curvature = (direction * image).sum(dim=1, keepdim=True)
        length = torch.where(running, square / torch.where(running, curvature, 1.0), 0.0)
        found, left = found + length * direction, left - length * image
        before, square = square, (left * left).sum(dim=1, keepdim=True)
        ratio = torch.where(running, square / torch.where(running, before, 1.0), 0.0)
        direction = left + ratio * direction
    norm = square.sqrt().squeeze(1).detach()
    failed = Solution(
        value=found.detach(),
        status=torch.where(norm > 0, int(Status.LINEAR_SOLVE_FAILED), int(Status.CONVERGED)),
        residual_norm=norm,
        steps=torch.full_like(norm, 2 * right.shape[1] + 10, dtype=torch.int64),
        error=torch.full_like(norm, torch.nan),
        counts=Counts(),
    )
    raise SolveError(
        f"the Gauss–Newton derivative of {described} was not found: conjugate gradients left "
        f"{(square / right.square().sum(dim=1, keepdim=True)).amax().sqrt().item():.1g} of the equation. "
        "Scale the unknowns, or leave gradient out for the exact derivative",
        failed,
    )


def _with_bounds(
    parent: GivenEquation, equation: DerivedEquation, args: Leaves, layout: Layout, hessian: Tensor
) -> Tensor:
    """The matrix of the derived equation: unknowns that a bound holds back keep to it."""
    assert parent.box is not None  # for the type checker
    z, own = args[: equation.leaves], args[2 * equation.leaves :]
    gradient = layout.flatten(parent.unreduced_at(own)(z))
    held = parent.box.at(layout, own).held(layout.flatten(z), gradient)
    matrices = torch.where(held.unsqueeze(2), torch.diag_embed(torch.ones_like(gradient)), hessian)
    return matrices.mT if isinstance(equation, AdjointEquation) else matrices


def _on_flat(product: Product, layout: Layout):  # type: ignore[no-untyped-def]
    return lambda flat: layout.flatten(product(layout.unflatten(flat)))


def _pseudo_inverse(matrices: Tensor) -> Tensor:
    largest = max(matrices.shape[-2:])
    rtol = _RANK_UNITS * largest * torch.finfo(matrices.dtype).eps
    return torch.linalg.pinv(matrices, rtol=rtol)


def _times(matrices: Tensor, rows: Tensor) -> Tensor:
    return torch.einsum("bij,bj->bi", matrices, rows)
