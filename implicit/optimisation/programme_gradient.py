"""Derivatives of quadratic programmes by the matrix of their conditions, put together from their data.

With the active inequalities held fixed the conditions of optimality are one symmetric linear equation, of
which only the active rows count. It is put together by differentiable operations, so that its solution has
derivatives of every order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...solvers.interface.box import held
from ...solvers.interface.programme import Programme
from ...solvers.linear.dense import accurate, units
from ...solvers.linear.rows import product
from ...solvers.programmes.active_rows import ActiveRows
from ...solvers.programmes.solving import at_once
from ..equations.derived import AdjointEquation
from ..equations.differentiation import transforming
from ..equations.equation import GivenEquation
from ..equations.layout import Layout, Leaves
from ..equations.programmes import data
from ..gradients import Exact
from ..gradients.mode import ImplicitGradient, LinearSolve


@dataclass(frozen=True)
class OnActiveSet(ImplicitGradient):
    """The implicit function theorem for quadratic programmes, with one dense factorisation for each.

    Where a matrix is singular or nearly so, or inside of transforms, the general way is taken (`Exact`).

    Source: Amos & Kolter 2017, equation 6; Fiacco 1983, theorem 3.2.2.
    """

    exact: ClassVar[bool] = True

    def solve_linear(self, linear: LinearSolve) -> Leaves:
        found = None
        if isinstance(linear.equation.parent, GivenEquation) and not transforming():
            found = _directly(linear)
        return Exact().solve_linear(linear) if found is None else found


def _directly(linear: LinearSolve) -> Leaves | None:
    """The solution of an adjoint or tangent equation; `None` where a matrix is singular to rounding."""
    equation, args, leaves = linear.equation, linear.args, linear.equation.leaves
    constant = equation.constant(args)
    layout = Layout.of(constant, equation.batch_dims)
    behind = len(layout.batch_shape)

    def flat(part: Tensor) -> Tensor:
        return part.reshape(layout.systems, *part.shape[behind:])

    own = args[2 * leaves :]
    programme = Programme(*map(flat, data(own, tuple(layout.batch_shape))))
    z, _, multiplier = (flat(part.detach()) for part in args[:leaves])
    lower = own[5 + leaves].detach().expand(*layout.batch_shape, multiplier.shape[1])
    slack = programme.h.detach() - product(programme.G.detach(), z)
    holds, _ = held(multiplier, flat(lower), torch.full_like(slack, torch.inf), slack)
    rows = ActiveRows.of(~holds)
    first, second, third = map(flat, constant)
    off, sign = torch.where(holds, third, 0.0), -1.0
    if isinstance(
        equation, AdjointEquation
    ):  # Jᵀ u = −c, where u of active rows has the other sign.
        right = torch.cat((-first, -second, -rows.of_vector(third)), dim=1)
    else:  # J w = −c, where w of inactive rows is −c.
        right = torch.cat(
            (product(programme.G.mT, off) - first, -second, rows.of_vector(third)), dim=1
        )
        sign = 1.0
    found = _solved(rows.matrix(programme), right)
    if found is None:
        return None
    n, p, m = z.shape[1], second.shape[1], slack.shape[1]
    own_rows = rows.spread(sign * found[:, n + p :], m) - off
    if isinstance(equation, AdjointEquation):
        own_rows = own_rows - torch.where(holds, product(programme.G, found[:, :n]), 0.0)
    return layout.unflatten(torch.cat((found[:, : n + p], own_rows), dim=1))


def _solved(matrix: Tensor, right: Tensor) -> Tensor | None:
    """The solution in units of rows and columns, a few systems at a time; `None` where one is inaccurate."""
    few = at_once(matrix.shape[1], matrix.device, len(matrix))
    parts = []
    for A, b in zip(matrix.split(few), right.split(few), strict=True):
        row, column = units(A.detach())
        A, b = row.unsqueeze(2) * A * column.unsqueeze(1), row * b
        found = torch.linalg.solve_ex(A, b.unsqueeze(2)).result.squeeze(2)
        if not bool(accurate(A.detach(), b.detach(), found.detach()).all()):
            return None
        parts.append(column * found)
    return torch.cat(parts)
