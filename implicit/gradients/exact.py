"""Exact derivatives by the implicit function theorem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...solvers import GMRES, Compiled, DenseLU, Polyalgorithm, SolveError, Solver, Stopping
from ...solvers.composed.members import default_members
from ..equations.layout import Layout, Leaves
from .following import following
from .mode import ImplicitGradient, LinearSolve

_SINGULAR = (
    "No derivative exists where the Jacobian is singular, as where the solution is one of many: "
    "gradient=MinimumNorm() then gives the smallest that keeps the equation true."
)


@dataclass(frozen=True)
class Exact(ImplicitGradient):
    """The implicit function theorem: one linear equation for each derivative, solved to tolerance.

    Derivatives are correct to every order and in both modes, whatever solver found the solution and
    whether or not the iteration contracts. `Solution.adjoints` has the residual norms of the linear solves.

    Attributes:
        solver: Solver of the adjoint and tangent equations, linear or not. `None` for `DenseLU()`
            up to 512 unknowns of a root and 32 of a fixed point, whose units may then differ by any factors;
            beyond for one that uses what the solver of the equation knew, if it knew anything: sparse
            factors by the same pattern, a Krylov method with the transposed preconditioner, or
            `CausalNewton` against time. Then `GMRES()`, after a Neumann series of fixed points while its
            terms shrink fast, and, where it fails, factors of dense or sparse matrices (`Polyalgorithm`).
            One of them alone if `stopping` limits its steps.
        stopping: Its stopping rule; `None` for the defaults of the dtype.

    Source: Bai, Kolter & Koltun 2019, theorem 1.

    Examples:
        >>> import torch, implicitly
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> gradient = implicitly.Exact(solver=implicitly.NeumannSeries())
        >>> z = implicitly.fixed_point(lambda z, x: 0.5 * z + x, torch.tensor(0.0), x, gradient=gradient)
        >>> z.value.backward()
        >>> round(x.grad.item(), 4)
        2.0
    """

    solver: Solver | None = None
    stopping: Stopping | None = None
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.solver is not None and not isinstance(self.solver, Solver):
            raise TypeError(
                "Exact(solver=...) must be an instance of a solver such as GMRES() or Anderson(), "
                f"got {self.solver!r}"
            )
        if self.stopping is not None and not isinstance(self.stopping, Stopping):
            raise TypeError(f"Exact(stopping=...) must be a Stopping, got {self.stopping!r}")

    @property
    def compiled(self) -> tuple[Solver, Stopping | None] | None:
        return (self.solver.solver, self.stopping) if type(self.solver) is Compiled else None

    @property
    def by_factors(self) -> bool:
        return self.solver is None and self.stopping is None

    def solve_linear(self, linear: LinearSolve) -> Leaves:
        try:
            return linear.solve(self.solver or self._default(linear), self.stopping)
        except SolveError as error:
            error.args = (f"{error}\n{_SINGULAR}", *error.args[1:])
            raise

    def _default(self, linear: LinearSolve) -> Solver:
        equation, rule = linear.equation, self.stopping
        constant = equation.constant(linear.args)
        if equation.small(constant):
            return DenseLU()
        layout = Layout.of(constant, equation.batch_dims)
        members = default_members(
            layout.systems, sum(layout.sizes), True, equation.form == "fixed_point"
        )
        # Factors of dense matrices know all that another solver could tell.
        known = None if isinstance(members[0], DenseLU) else following(linear)
        # A limit is meant for one solver, so use one alone instead of the polyalgorithm.
        if rule is not None and rule.limited:
            return known or GMRES()
        return Polyalgorithm(None if known is None else (known, *members), remember=False)
