"""Derivatives of equations whose unknowns have very different units.

A Krylov method ends where the norm of the residual is small beside that of the right-hand side. If unknowns
of the equation have units that differ by powers of ten, the norm sees the largest entries alone, and others
may be wrong in every digit. The adjoint `Jᵀu = −z̄` at a solution `z` has the units `z̄_j ~ 1 / |z_j|` in its
equations. Where every `|z_j|` is within some powers of ten of the largest, norms are good measures: from
`‖ρ‖ ≤ τ ‖z̄‖` follows, in units without dimension,

    ‖ |z| ∘ ρ ‖ ≤ κ τ ‖ |z| ∘ z̄ ‖,    κ = max |z_j| ‖z̄‖ / ‖ |z| ∘ z̄ ‖,

and neither costs a product. Else rows and columns of the matrix get units in which all have norms near one,
beginning with `|z|` for the equations of an adjoint and for the unknowns of a tangent; the norms come from
products with vectors of random signs. The solution is examined for each equation: its residual has to be
small beside its own terms (Oettli & Prager 1964), or a member with factors takes over.

Source: Ruiz 2001 (rows and columns in turn); Diamond & Boyd 2017, "Stochastic matrix-free equilibration"
(norms from random signs); Oettli & Prager 1964 (the componentwise backward error).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..driving.driver import solve
from ..interface.goal import Goal
from ..interface.golden import golden_signs
from ..interface.norms import rms
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import RunOutcome, Solver
from ..linear.dense import powers_of_two
from ..linear.neumann_series import NeumannSeries
from ..linear.preconditioned import Preconditioned

# Units are mixed where more than this part of the unknowns is smaller than the largest by this factor.
_FEW, _SMALL = 0.1, 1e-4
# They are as well where norms may hide a residual so many times the tolerance.
_MOST_HIDDEN = 1e3
# The residual of an equation may be so many times the relative tolerance of its terms.
_OF_TERMS = 1e3
# Terms below this part of the largest, in units of the caller and in their own, count as this part of it.
_NEGLIGIBLE = 1e-3
# A member that follows one whose equations were not met aims this far below what is asked of them.
_BELOW = 0.1
# Vectors of random signs for each set of norms.
_PROBES = 4


def mixed(problem: Problem, residual: Tensor) -> bool:
    """True if a linear problem was derived at a solution with unknowns of very different units.

    Args:
        problem: The linear systems.
        residual: Their residual at the start, `(batch, n)`.

    Examples:
        >>> from implicitly.solvers.interface.derived_at import DerivedAt
        >>> ones = torch.ones(1, 2)
        >>> at = DerivedAt(torch.tensor([[1.0, 1e-6]]), transposed=True)
        >>> mixed(Problem(lambda v: v, derived_at=at), ones)
        True
        >>> mixed(Problem(lambda v: v, derived_at=DerivedAt(ones, transposed=True)), ones)
        False
    """
    at = problem.derived_at
    if at is None or at.solution.numel() == 0:
        return False
    size = at.size
    largest = size.amax(dim=1, keepdim=True)
    small = (size > 0) & (size < _SMALL * largest)
    spread = small.sum(dim=1) > _FEW * size.shape[1]
    if at.transposed:
        norms = torch.linalg.vector_norm(residual, dim=1)
        own = torch.linalg.vector_norm(size * residual, dim=1)
        spread = spread | (largest.squeeze(1) * norms > _MOST_HIDDEN * own)
    return bool(spread.any())


@dataclass(frozen=True)
class OwnUnits:
    """Powers of two, `(batch, n)`, by which equations and unknowns of a linear problem are scaled."""

    problem: Problem
    start: Tensor
    """The residual at the start."""
    rows: Tensor
    columns: Tensor

    @staticmethod
    def of(problem: Problem, start: Tensor) -> OwnUnits:
        """Units that make the rows and columns of the matrix alike; some twelve products."""
        at, derivative = problem.derived_at, problem.linearization(start)
        assert at is not None  # for the type checker: units are mixed
        known = at.size
        least = torch.where(known > 0, known, torch.inf).amin(dim=1, keepdim=True)
        size = torch.where(known > 0, known, torch.where(torch.isfinite(least), least, 1.0))

        def rows_for(columns: Tensor) -> Tensor:
            return powers_of_two(_norms(derivative.jvp, columns))

        def columns_for(rows: Tensor) -> Tensor:
            return powers_of_two(_norms(derivative.vjp, rows))

        rows = powers_of_two(1.0 / size) if at.transposed else rows_for(powers_of_two(1.0 / size))
        if at.transposed:
            rows = rows_for(columns_for(rows))
        return OwnUnits(problem, start, rows, columns_for(rows))

    @property
    def scaled(self) -> Problem:
        """The problem in these units, as a root."""
        rows, columns, derivative = self.rows, self.columns, self.problem.linearization(self.start)

        def operator(y: Tensor) -> Tensor:
            return -rows * self.problem.apply(columns * y)

        return Problem(
            function=lambda y: operator(y) - rows * self.start,
            form="root",
            operator=operator,
            transpose=lambda u: -columns * derivative.vjp(rows * u),
            operator_matrix=lambda like: (
                -rows.unsqueeze(2) * derivative.jacobian(like) * columns.unsqueeze(1)
            ),
            precision=self.problem.precision,
        )

    def member(self, member: Solver) -> Solver:
        """A solver of the scaled problem; its preconditioner is one of the problem itself."""
        if not isinstance(member, Preconditioned) or member.preconditioner is None:
            return member
        inner, rows, columns = member.preconditioner, self.rows, self.columns
        return replace(member, preconditioner=lambda v: inner(v / rows) / columns)

    def excess(self, scaled: Problem, y: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals over the terms of their equations, the largest of each system, `(batch,)`.

        The second one takes terms that are negligible, by the units of the caller and by these, for larger.
        """
        terms = _norms(scaled.apply, y.abs()) + (self.rows * self.start).abs()
        own = terms.amax(dim=1, keepdim=True)
        given = self.rows * (terms / self.rows).amax(dim=1, keepdim=True)
        least = torch.maximum(terms, _NEGLIGIBLE * torch.minimum(own, given))
        found = (_ratio(residual.abs(), part).amax(dim=1) for part in (terms, least))
        return next(found), next(found)


def solved_in_own_units(
    problem: Problem, members: tuple[Solver, ...], z: Tensor, start: Tensor, goal: Goal
) -> RunOutcome:
    """The solution of a linear problem by the first of the members that meets every equation.

    Args:
        problem: The systems, with mixed units.
        members: The solvers, in order.
        z: The start, `(batch, n)`.
        start: The residual there.
        goal: The tolerances and limits.
    """
    units = OwnUnits.of(problem, start)
    # A series needs equations in the units of the unknowns.
    members = tuple(m for m in members if not isinstance(m, NeumannSeries))
    members = (members[0], *members)  # Once more, for equations that the norm has left out.
    scaled, right = units.scaled, units.rows * start
    y, residual, batch = torch.zeros_like(start), right, start.shape[0]
    done = np.zeros(batch, dtype=bool) if goal.held is None else goal.held.copy()
    reference, limit = rms(right), torch.from_numpy(_OF_TERMS * goal.tolerance.rtol).to(start)
    steps, status = np.zeros(batch, dtype=np.int64), np.full(batch, int(Status.MAX_STEPS))
    worst, loose = torch.full_like(limit, torch.inf), torch.full_like(limit, torch.inf)
    budget, factor = goal.budget, np.ones(batch)
    for position, member in enumerate(members):
        share, budget = budget.divided(position == len(members) - 1)
        result = solve(
            scaled, units.member(member), y, share.limit(goal.stopping), residual=residual,
            tolerance=goal.lowered(factor, done).tolerance, reference=reference,
            held=done if done.any() else None,
        )  # fmt: skip
        own, without = units.excess(scaled, result.z, scaled.residual(result.z))
        better = torch.from_numpy(~done).to(own.device) & (own < worst)
        y = torch.where(better.unsqueeze(1), result.z, y)
        worst, loose = torch.where(better, own, worst), torch.where(better, without, loose)
        steps = steps + np.where(done, 0, result.steps)
        status = np.where(better.cpu().numpy(), result.status, status)
        done = done | (worst <= limit).cpu().numpy()
        if done.all() or budget.spent(0):
            break
        residual = scaled.residual(y)
        # Where the norm is small already, a member that only had to lower it would do nothing.
        below = (_BELOW * limit / worst).clamp(max=1.0).double().cpu().numpy()
        factor = np.where(np.isfinite(below), below, 1.0)
    met = (torch.minimum(worst, loose) <= limit).cpu().numpy()
    status = np.where(met, int(Status.CONVERGED), status)
    status = np.where(~met & (status == Status.CONVERGED), int(Status.STALLED), status)
    relative = (loose / _OF_TERMS).double().cpu().numpy()
    return RunOutcome(
        z + units.columns * y,
        status,
        steps,
        {int(i): _account(float(worst[i])) for i in np.flatnonzero(~met)},
        residual_norm=relative * rms(start).double().cpu().numpy(),
        error=worst.double().cpu().numpy(),
    )


def _account(worst: float) -> str:
    return (
        "the unknowns have units that differ by powers of ten, and an equation is met only to "
        f"{worst:.1g} of its terms: scale the unknowns to like sizes, or choose DenseLU() or SparseLU()"
    )


def _norms(apply: Callable[[Tensor], Tensor], weights: Tensor) -> Tensor:
    """Estimates of the 2-norms of the rows of `A` with columns times `weights`, from products."""
    total = torch.zeros_like(weights)
    for probe in range(_PROBES):
        signs = golden_signs(weights, first=1 + probe * weights.shape[1])
        total = torch.hypot(total, apply(weights * signs).detach())
    return total / _PROBES**0.5


def _ratio(some: Tensor, others: Tensor) -> Tensor:
    """`some / others`; 0 for 0 / 0."""
    return torch.where(some > 0, some / others, 0.0)
