"""Inexact Newton's method: each step solves its linear equation only as accurately as pays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...options.options import check_integer, check_optional_integer, is_positive
from ..driving.driver import solve
from ..interface.problem import Linearization, Problem
from ..interface.solution import Status
from ..interface.solver import Solver, Transpose
from ..interface.stopping import Stopping
from ..interface.tolerance import Tolerance
from ..linear.gmres import GMRES
from ..linear.sparse_lu import SparseLU
from .globalisation import (
    FullSteps,
    Globalisation,
    Model,
    Point,
    PointState,
    check_globalisation,
    settled_systems,
)
from .line_search import NonmonotoneLineSearch

# With sparse factors rounding is looked for after so many steps without progress.
_FIRST_DOUBT = 2


@dataclass
class NewtonKrylovState(PointState):
    """Iterate, and tolerance of the next linear solve."""

    memory: Any
    forcing: Tensor
    """Relative tolerance of the next linear solve, `(batch,)`."""
    end_status: Tensor
    short: Tensor
    """Last linear solves in a row that missed their tolerance, `(batch,)`, if these are limited."""
    spent: Tensor
    """Steps of all linear solves so far, `(batch,)`, if these are limited."""

    @property
    def norm(self) -> Tensor:
        return self.point.norm


@dataclass(frozen=True)
class NewtonKrylov(Solver):
    """`z ← z + λs` with `‖J s + r‖ ≤ η ‖r‖` by a linear solver that only needs products `J v`.

    The forcing term follows the progress of the residual, `η = 0.9 (‖r‖ / ‖r_before‖)²`; while it is
    large it falls no faster than its own square. So early steps are cheap, and late ones converge
    superlinearly.

    Attributes:
        linear_solver: GMRES, BiCGStab or any other solver.
        first_forcing: `η` of the first step and its upper limit, in `(0, 1)`.
        globalisation: The rule by which a step lowers the residual: `LineSearch()`,
            `NonmonotoneLineSearch()`, `TrustRegion()`, or `None` for full steps whatever the residual.
        max_linear_steps: Limit on the steps of one linear solve. A solution that misses its tolerance is
            used if it lowers the linear residual at all.
        max_short_solves: Linear solves in a row that may miss their tolerance before the system ends
            with `LINEAR_SOLVE_FAILED`; `None` for any number.
        linear_budget: Steps of all its linear solves together after which a system ends with
            `LINEAR_SOLVE_FAILED`; `None` for any number.

    Raises:
        ValueError: An option is out of range.
        TypeError: `linear_solver` is not a solver, or `globalisation` is not a globalisation.

    Source: Dembo, Eisenstat & Steihaug 1982; Eisenstat & Walker 1996, choice 2 with its
    safeguard; Kelley 1995, section 8.4.

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.ones(100)
        >>> F = lambda z: z**3 + z - 0.5 * z.roll(1) - 1
        >>> solution = implicitly.root(F, z0, solver=implicitly.NewtonKrylov())
        >>> bool(solution.converged), bool(solution.residual_norm < 1e-5)
        (True, True)
    """

    linear_solver: Solver = field(default_factory=GMRES)
    first_forcing: float = 0.5
    globalisation: Globalisation | None = field(default_factory=NonmonotoneLineSearch)
    max_linear_steps: int = 200
    max_short_solves: int | None = None
    linear_budget: int | None = None
    needs: ClassVar[str] = "products with the Jacobian"
    suits: ClassVar[str] = "many unknowns"

    default_max_steps: ClassVar[int] = 100

    def __post_init__(self) -> None:
        if not isinstance(self.linear_solver, Solver):
            raise TypeError(
                f"linear_solver must be a solver such as GMRES(), got {self.linear_solver!r}"
            )
        if not (is_positive(self.first_forcing) and self.first_forcing < 1):
            raise ValueError(f"first_forcing must be in (0, 1), got {self.first_forcing!r}")
        check_globalisation(self.globalisation)
        limit = self.max_linear_steps
        check_integer("max_linear_steps", limit, 1)
        for name in ("max_short_solves", "linear_budget"):
            check_optional_integer(name, getattr(self, name), 1)

    @property
    def keeps_batch(self) -> bool:
        return self.linear_solver.keeps_batch

    @property
    def first_doubt(self) -> int:
        # Factors cost more than the product that tells.
        return _FIRST_DOUBT if isinstance(self.linear_solver, SparseLU) else super().first_doubt

    def for_derivative(self, transpose: Transpose | None) -> Solver | None:
        return self.linear_solver.for_derivative(transpose)

    @property
    def _rule(self) -> Globalisation:
        return self.globalisation or FullSteps()

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> NewtonKrylovState:
        point = Point.of(z, residual)
        forcing = torch.full_like(point.norm, self.first_forcing)
        none = torch.zeros_like(point.norm)
        return NewtonKrylovState(point, self._rule.begin(point), forcing, none, none, none)

    def step(self, problem: Problem, state: NewtonKrylovState) -> NewtonKrylovState:
        linearization = problem.linearization(state.z)
        move, usable, reached, steps = self._solve(problem, linearization, state)
        model = Model(
            state.residual, move, linearization.jvp, linearization.vjp, exact=problem.linear
        )
        settled = settled_systems(problem, state.norm)
        advance = self._rule.advance(
            lambda z: Point.of(z, problem.residual(z)), state.point, model, state.memory, settled
        )
        end_status = torch.where(advance.accepted, 0, int(Status.STALLED))
        short = state.short
        if self.max_short_solves is not None:
            short = torch.where(torch.from_numpy(reached).to(short.device), 0.0, short + 1)
            usable = usable & (short < self.max_short_solves)
        spent = state.spent
        if self.linear_budget is not None:
            spent = spent + torch.from_numpy(steps).to(spent)
            usable = usable & (spent < self.linear_budget)
        end_status = torch.where(usable, end_status, int(Status.LINEAR_SOLVE_FAILED))
        forcing = self._forcing(state, advance.point.norm)
        return NewtonKrylovState(advance.point, advance.memory, forcing, end_status, short, spent)

    def _solve(
        self, problem: Problem, linearization: Linearization, state: NewtonKrylovState
    ) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
        """The step, the systems whose linear residual it lowers, those that meet `forcing`, linear steps."""
        right = state.residual
        if problem.finished is not None:
            right = torch.where(problem.finished, 0.0, right)
        # The residual of this problem is J s + r, and s + (J s + r) is a step of its plain iteration.
        linear = Problem(
            function=lambda s: -(linearization.jvp(s) + right),
            form="root",
            operator=lambda s: -linearization.jvp(s),
            transpose=lambda u: -linearization.vjp(u),
            precision=problem.precision,
        )
        result = solve(
            linear, self.linear_solver, torch.zeros_like(right),
            Stopping(max_steps=self.max_linear_steps),
            residual=right, tolerance=Tolerance.of_norms(state.forcing),
        )  # fmt: skip
        problem.counts.linear_iterations += linear.counts.evaluations
        unit = right.shape[1] ** 0.5
        left = torch.from_numpy(result.residual_norm).to(right) * unit
        usable = left < torch.linalg.vector_norm(right, dim=1)
        if problem.finished is not None:
            usable = usable | problem.finished.squeeze(1)
        return result.z, usable, result.status == Status.CONVERGED, result.steps

    def _forcing(self, state: NewtonKrylovState, norm: Tensor) -> Tensor:
        progress = 0.9 * (norm / state.norm) ** 2
        memory = 0.9 * state.forcing**2
        forcing = torch.where(memory > 0.1, torch.maximum(progress, memory), progress)
        smallest = 10 * torch.finfo(norm.dtype).eps
        return forcing.nan_to_num(nan=self.first_forcing).clamp(smallest, self.first_forcing)
