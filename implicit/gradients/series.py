"""Truncated Neumann series in place of the adjoint equation."""

from __future__ import annotations

from dataclasses import dataclass

from ..equations.derived import DerivedEquation
from ..equations.layout import Leaves
from .mode import ImplicitGradient, LinearSolve


@dataclass(frozen=True)
class Neumann(ImplicitGradient):
    """Approximate: the Neumann series of `(I − Jᵀ)⁻¹`, cut off after `terms` powers of `J`.

    The error is about `‖J‖^(terms + 1)` of the gradient; where the spectral radius of `J` is not below
    one, more terms make it worse.

    Attributes:
        terms: Number of powers of `J` beyond the identity.

    Raises:
        ValueError: `terms` is not an integer ≥ 0.

    Source: Lorraine, Vicol & Duvenaud 2020; Geng et al. 2021, eq. 8.

    Examples:
        >>> Neumann(terms=5)
        Neumann(terms=5)
    """

    terms: int

    def __post_init__(self) -> None:
        if not (isinstance(self.terms, int) and self.terms >= 0):
            raise ValueError(f"terms must be an integer ≥ 0, got {self.terms!r}")

    def solve_linear(self, linear: LinearSolve) -> Leaves:
        return _truncated(linear.equation, linear.args, self.terms)


@dataclass(frozen=True)
class JacobianFree(ImplicitGradient):
    """Approximate: `(I − Jᵀ)⁻¹` replaced by the identity, as if the last iteration were the only one.

    Source: Fung et al. 2022.

    Examples:
        >>> JacobianFree()
        JacobianFree()
    """

    def solve_linear(self, linear: LinearSolve) -> Leaves:
        return _truncated(linear.equation, linear.args, 0)


def _truncated(equation: DerivedEquation, args: Leaves, terms: int) -> Leaves:
    """`terms + 1` plain iterations of the linear equation from zero."""
    sign = 1.0 if equation.form == "fixed_point" else -1.0
    constant = equation.constant(args)
    total = tuple(sign * leaf for leaf in constant)
    if terms == 0:
        return total
    function = equation.bind(args).function
    for _ in range(terms):
        if equation.form == "fixed_point":
            total = function(total)
        else:
            total = tuple(u - r for u, r in zip(total, function(total), strict=True))
    return total
