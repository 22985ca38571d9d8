"""A scale-invariant first step length from a single residual evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from .compiled_systems import NoDerivativeError
from .problem import Problem


def first_step_length(problem: Problem, z: Tensor, residual: Tensor) -> Tensor | None:
    """The `t` per system, `(batch, 1)`, for which `t · r` is a step of the right size; or `None` for 1.

    A fixed-point residual is itself a step, so `None`. A root's residual has the units of the equation
    and not of the unknown; one product with the transposed Jacobian, the cheaper of the two, gives
    `|t| = ‖r‖ / ‖Jᵀr‖`, with the sign of `−rᵀJ r`, which points downhill. Rescaling equation or unknown
    rescales `t` so that `t · r` does not change but for the unit of `z`. Where `Jᵀr = 0` the length is 1.
    """
    if problem.form == "fixed_point":
        return None
    try:
        linearization = problem.linearization(z)
    except NoDerivativeError:  # A difference along the residual is all that is left.
        return _by_difference(problem, z, residual)
    # Of a linear problem the operator is at hand, and the transpose still to be made.
    product = linearization.jvp(residual) if problem.linear else linearization.vjp(residual)
    return _length(residual, product)


def _by_difference(problem: Problem, z: Tensor, residual: Tensor) -> Tensor:
    """The same with `J r` for `Jᵀr`, by one evaluation a little along the residual."""
    sizes = (torch.linalg.vector_norm(one, dim=1, keepdim=True) for one in (z, residual))
    size, length = sizes
    ratio = torch.where((size > 0) & (length > 0), size / length, torch.ones_like(size))
    part = problem.eps(z) ** 0.5 * ratio
    return _length(residual, (problem.residual(z + part * residual) - residual) / part)


def _length(residual: Tensor, product: Tensor) -> Tensor:
    """The length from the product of the residual with `J` or its transpose."""
    length = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
    change = torch.linalg.vector_norm(product, dim=1, keepdim=True)
    uphill = (residual * product).sum(dim=1, keepdim=True) > 0
    # Not divided by zero where that is not taken either, since the derivative of the quotient would be NaN.
    ones = torch.ones_like(length)
    size = torch.where(change > 0, length / torch.where(change > 0, change, ones), ones)
    size = torch.where(torch.isfinite(size), size, torch.ones_like(size))
    return torch.where(uphill, -size, size)


def first_length(problem: Problem, z: Tensor, residual: Tensor) -> Tensor:
    """`first_step_length` with ones for `None`."""
    length = first_step_length(problem, z, residual)
    return residual.new_ones(residual.shape[0], 1) if length is None else length


def first_step(problem: Problem, z: Tensor, residual: Tensor) -> Tensor:
    """A step of the right size along the residual, `(batch, n)`."""
    return first_length(problem, z, residual) * residual
