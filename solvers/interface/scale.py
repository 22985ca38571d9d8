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
    except NoDerivativeError:  # A step along the residual is all that is left.
        return torch.ones_like(residual[:, :1])
    # Of a linear problem the operator is at hand, and the transpose still to be made.
    product = linearization.jvp(residual) if problem.linear else linearization.vjp(residual)
    length = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
    change = torch.linalg.vector_norm(product, dim=1, keepdim=True)
    uphill = (residual * product).sum(dim=1, keepdim=True) > 0
    size = torch.where(change > 0, length / change, torch.ones_like(length))
    size = torch.where(torch.isfinite(size), size, torch.ones_like(size))
    return torch.where(uphill, -size, size)


def first_length(problem: Problem, z: Tensor, residual: Tensor) -> Tensor:
    """`first_step_length` with ones for `None`."""
    length = first_step_length(problem, z, residual)
    return residual.new_ones(residual.shape[0], 1) if length is None else length


def first_step(problem: Problem, z: Tensor, residual: Tensor) -> Tensor:
    """A step of the right size along the residual, `(batch, n)`."""
    return first_length(problem, z, residual) * residual
