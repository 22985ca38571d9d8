"""The adjoint and tangent of a solution, by the gradient mode of its call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..equations.equation import AdjointEquation, TangentEquation
from ..equations.layout import Leaves
from .mode import ImplicitGradient, TapedGradient

if TYPE_CHECKING:
    from ..rule import Call


def adjoint(call: Call, z: Leaves, cotangents: Leaves, args: Leaves) -> Leaves:
    """`u` of the adjoint equation at the solution `z`, by the gradient mode of the call."""
    equation = AdjointEquation(call.equation, len(z))
    return _mode(call).solve_linear(call, equation, (*z, *cotangents, *args))


def tangent(call: Call, z: Leaves, tangents: Leaves, args: Leaves) -> Leaves:
    """`ż` of the tangent equation at the solution `z`, by the gradient mode of the call."""
    equation = TangentEquation(call.equation, len(z))
    return _mode(call).solve_linear(call, equation, (*z, *tangents, *args))


def _mode(call: Call) -> ImplicitGradient:
    if isinstance(call.gradient, TapedGradient):
        raise TypeError(
            f"{type(call.gradient).__name__} differentiates iterations, not the solution"
        )
    return call.gradient
