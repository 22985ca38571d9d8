"""Folds, branch points and Hopf points as roots of extended systems, so that their derivatives are those of
roots.

Fold, for `(z, λ, v)` (Moore & Spence 1980, equation 2.1):

    F(z, λ) = 0,    F_z v = 0,    v_k = 1

Simple branch point, for `(z, λ, u, ε)` (Moore 1980; Govaerts 2000, section 8.3):

    F(z, λ) + ε u = 0,    F_zᵀ u = 0,    F_λᵀ u = 0,    u_k = 1

Hopf point, where `∂F/∂z` has the eigenvalues `± i ω`, for `(z, λ, a, b, ω)` (Roose & Hlavaček 1985; Seydel
2010, section 2.6, Govaerts 2000, section 8.1):

    F(z, λ) = 0,    F_z a + ω b = 0,    F_z b − ω a = 0,    a_k = 1,    b_k = 0

All are regular where the point is simple. The `k` is fixed, where `v` or `u` is largest, so that the row is
sparse. Branch points exist in families with one parameter only by symmetry: elsewhere an arbitrary change
of the equation breaks them. `ε` is the change that keeps the point, and is zero where it is one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...solvers import NewtonKrylov, Solution, Solver, SparseLU
from ..functional import root
from ..gradients import Gradient
from ..surroundings.failure import FailurePolicy
from .equation import CurveEquation
from .oscillation import Critical

MOST_DENSE = 512
"""Up to so many unknowns matrices are dense."""


class Fold(NamedTuple):
    """A fold: two solutions meet there, and on one side of it there is none.

    Attributes:
        z: The unknown, in its structure.
        parameter: The value of the parameter, without axes.
        null: The null vector `v` of `∂F/∂z`, in the structure of the unknown; its largest entry is one.

    Examples:
        >>> import torch, implicitly
        >>> z, p = torch.tensor(0.2, dtype=torch.float64), 0.1
        >>> implicitly.fold(lambda z, p: z**2 - p, z, p).value.null.item()
        1.0
    """

    z: Any
    parameter: Tensor
    null: Any


class Branching(NamedTuple):
    """A branch point: two curves cross there.

    Attributes:
        z: The unknown, in its structure.
        parameter: The value of the parameter, without axes.
        left: The left null vector `u`, in the structure of the unknown; its largest entry is one.
        imperfection: `ε`, zero up to the tolerance.
    """

    z: Any
    parameter: Tensor
    left: Any
    imperfection: Tensor


class HopfPoint(NamedTuple):
    """A Hopf point: a pair of eigenvalues crosses the imaginary axis there.

    Attributes:
        z: The unknown, in its structure.
        parameter: The value of the parameter, without axes.
        null: The real part of the eigenvector, in the structure of the unknown.
        frequency: `ω`, the imaginary part of the eigenvalue.
    """

    z: Any
    parameter: Tensor
    null: Any
    frequency: Tensor


def solver_of(unknowns: int, given: Solver | None) -> Solver | None:
    """The solver of an equation of a curve: sparse Newton steps for many unknowns, else the default."""
    if given is not None or unknowns <= MOST_DENSE:
        return given
    return NewtonKrylov(linear_solver=SparseLU())


def solve_fold(
    equation: CurveEquation,
    z: Tensor,
    parameter: Tensor,
    null: Tensor,
    *,
    solver: Solver | None = None,
    gradient: Gradient | None = None,
    on_failure: FailurePolicy = "raise",
) -> Solution:
    """The fold near `(z, λ)` with null vector near `null`; the value is a `Fold`."""
    place = int(null.abs().argmax())

    def system(unknown: tuple[Tensor, Tensor, Tensor], *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        z, parameter, v = unknown
        value, moved = _along(equation, z, parameter, (v,), args)
        return value, v[place] - 1, moved[0]

    start = (z, parameter.detach().clone(), null / null[place])
    solution = root(
        system, start, *equation.args,
        solver=solver_of(equation.n, solver), gradient=gradient, on_failure=on_failure,
    )  # fmt: skip
    z, parameter, v = solution.value
    found = Fold(equation.structured(z), parameter, equation.structured(v))
    return replace(solution, value=found)


def solve_branch_point(
    equation: CurveEquation,
    z: Tensor,
    parameter: Tensor,
    left: Tensor,
    *,
    solver: Solver | None = None,
    gradient: Gradient | None = None,
    on_failure: FailurePolicy = "raise",
) -> Solution:
    """The simple branch point near `(z, λ)` with left null vector near `left`; the value is a `Branching`."""
    place = int(left.abs().argmax())

    def system(
        unknown: tuple[Tensor, Tensor, Tensor, Tensor], *args: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z, parameter, u, imperfection = unknown
        value, back = torch.func.vjp(
            lambda z, parameter: equation.residual(z, parameter, *args), z, parameter
        )[:2]
        along_z, along_parameter = back(u)
        return value + imperfection * u, along_parameter, along_z, u[place] - 1

    start = (z, parameter.detach().clone(), left / left[place], torch.zeros_like(parameter))
    solution = root(
        system, start, *equation.args,
        solver=solver_of(equation.n, solver), gradient=gradient, on_failure=on_failure,
    )  # fmt: skip
    z, parameter, u, imperfection = solution.value
    found = Branching(equation.structured(z), parameter, equation.structured(u), imperfection)
    return replace(solution, value=found)


def solve_hopf_point(
    equation: CurveEquation,
    z: Tensor,
    parameter: Tensor,
    critical: Critical,
    *,
    solver: Solver | None = None,
    gradient: Gradient | None = None,
    on_failure: FailurePolicy = "raise",
) -> Solution:
    """The Hopf point near `(z, λ)` with a pair of eigenvalues near `critical`; the value is a `HopfPoint`."""
    place = int((critical.real**2 + critical.imaginary**2).argmax())

    def system(unknown: tuple[Tensor, ...], *args: Any) -> tuple[Tensor, ...]:
        z, parameter, a, b, frequency = unknown
        value, (along_a, along_b) = _along(equation, z, parameter, (a, b), args)
        return value, a[place] - 1, along_a + frequency * b, along_b - frequency * a, b[place]

    start = (
        z, parameter.detach().clone(), critical.real, critical.imaginary, critical.frequency,
    )  # fmt: skip
    solution = root(
        system, start, *equation.args,
        solver=solver_of(equation.n, solver), gradient=gradient, on_failure=on_failure,
    )  # fmt: skip
    z, parameter, a, _, frequency = solution.value
    found = HopfPoint(equation.structured(z), parameter, equation.structured(a), frequency)
    return replace(solution, value=found)


def _along(
    equation: CurveEquation,
    z: Tensor,
    parameter: Tensor,
    vectors: tuple[Tensor, ...],
    args: tuple[Any, ...],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`F` and `F_z v` for every vector, by two products with the transpose: forward mode does not nest."""
    value, back = torch.func.vjp(lambda z: equation.residual(z, parameter, *args), z)[:2]
    twice = torch.func.vjp(lambda u: back(u)[0], torch.zeros_like(value))[1]
    return value, tuple(twice(v)[0] for v in vectors)
