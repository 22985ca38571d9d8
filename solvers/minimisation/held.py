"""Gradient and model of an objective within bounds: unknowns that a bound holds back take no part.

An unknown that is on a bound, with a gradient that would take it out, is held: the model of a step is that of
the others. A step is projected onto the bounds, and judged by what the model promises of the projected step.

Source: Bertsekas 1982 (the active set of a projected Newton step); Lin & Moré 1999 (trust regions within
bounds); Conn, Gould & Toint 1988.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..interface.problem import Problem


def gradient_at(problem: Problem, z: Tensor, residual: Tensor | None = None) -> Tensor:
    """The gradient of the objective; from the residual there if that is all there is to know."""
    if problem.unreduced is not None:
        return -problem.unreduced.residual(z)
    return -(problem.residual(z) if residual is None else residual)


def residual_at(problem: Problem, z: Tensor, gradient: Tensor) -> Tensor:
    """The residual of the reduced equation, minus the projected gradient."""
    return -(gradient if problem.box is None else problem.box.reduced(z, gradient))


def hessian_at(problem: Problem, z: Tensor) -> Tensor:
    """The Hessian of the objective, `(batch, n, n)`; zero in rows and columns of unknowns that are held."""
    equation = problem.unreduced or problem
    linearization = equation.linearization(z)
    hessian = -linearization.jacobian(z)
    if problem.box is None:
        return hessian
    assert linearization.residual is not None  # for the type checker: the problem is not linear
    held = problem.box.held(z, -linearization.residual)
    return torch.where(held.unsqueeze(1) | held.unsqueeze(2), 0.0, hessian)


def free_part(problem: Problem, z: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with zeros for unknowns that are held, `(batch, n)`."""
    if problem.box is None:
        return gradient
    return torch.where(problem.box.held(z, gradient), 0.0, gradient)


def without_held(problem: Problem, z: Tensor, gradient: Tensor, jacobian: Tensor) -> Tensor:
    """Jacobians of residuals, `(batch, m, n)`, with columns of zeros for unknowns that are held."""
    if problem.box is None:
        return jacobian
    return torch.where(problem.box.held(z, gradient).unsqueeze(1), 0.0, jacobian)
