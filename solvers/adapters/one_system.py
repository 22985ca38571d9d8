"""Adapter from a batch to libraries that solve one system at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..driving.demand import Demand, examinable, reason
from ..driving.estimate import estimated
from ..driving.ledger import Ledger
from ..driving.limits import ResidualLimits
from ..driving.progress import REREAD_MARGIN, Progress, Rules, verdict
from ..interface.compiled_systems import NoDerivativeError
from ..interface.goal import Goal
from ..interface.norms import rms
from ..interface.problem import Problem
from ..interface.solution import Counts, Status
from ..interface.solver import RunOutcome
from ..interface.tolerance import Budget, threshold

Result = TypeVar("Result")

# A library ends by its own rules, so only the size of the last residual is judged.
_NO_PROGRESS = Progress(np.inf, np.inf, np.int64(0), np.bool_(False))


class Ended(Exception):  # noqa: N818 - not an error
    """Raised by a function that a library's solver calls, to end that solver."""


class OneSystem:
    """One system of a batch: its evaluations, counted and judged, and its status.

    If the problem can be restricted, it is evaluated for this system alone; else for all, with the others
    fixed at their start. Either way no system depends on another.

    Attributes:
        index: Its place in the batch.
        start: Its start, `(n,)`.
        first_norm: The residual norm at the start.
        best: The point of the smallest residual so far.
        steps: Steps of the library, as far as it reports them.
        budget: Limits on these and on evaluations, which are counted for this system alone.
    """

    def __init__(
        self,
        problem: Problem,
        index: int,
        goal: Goal,
        ledger: Ledger,
        budget: Budget,
        stops_at_goal: bool,
        limits: ResidualLimits | None = None,
    ) -> None:
        z = ledger.z.detach()
        self.index, self.start = index, z[index]
        if problem.restrict is None:
            self._problem, self._rows, self._row = problem, z, index
        else:
            alone = torch.tensor([index], device=z.device)
            self._problem, self._rows, self._row = problem.restrict(alone), self.start[None], 0
        self._alone = self._rows.shape[0] == 1
        self._goal, self._ledger = goal, ledger
        self.budget = budget
        self.first_norm = float(ledger.norms[index])
        self._rtol = float(goal.tolerance.rtol[index])
        self._atol = float(goal.tolerance.atol[index])
        self._reference = None if goal.reference is None else float(goal.reference[index])
        self._stops = stops_at_goal
        self._raised: Exception | None = None
        self._demand = Demand.of(problem.dtype(z), goal.stopping)
        self._limits = limits
        self._factor, self._distance = 1.0, np.nan

        self.best = self._last = self.start
        self._best_norm = self._last_norm = self.first_norm
        self.steps = 0
        self.cancelled = False

    @property
    def evaluations(self) -> int:
        """Number of evaluations of its residual."""
        return self.budget.counts.evaluations

    @property
    def ended(self) -> bool:
        return bool(self._ledger.status[self.index] != Status.RUNNING)

    def residual(self, x: Tensor) -> Tensor:
        """The residual at `x`; both `(n,)`."""
        self._count()
        residual = self.call(lambda: self._problem.residual(self._all(x)))[self._row].detach()
        norm = float(rms(residual))
        self._last, self._last_norm = x, norm
        if norm < self._best_norm:
            self.best, self._best_norm = x, norm
        if (
            self._stops
            and self._meets(x, norm, REREAD_MARGIN * self._factor)
            and self._accepts(x, residual)
        ):
            self.best = x
            self.end(Status.CONVERGED)
        return residual

    def _accepts(self, x: Tensor, residual: Tensor) -> bool:
        """True if limits and an estimate of the error accept `x`; else the residual must fall further."""
        rows = self._all(x)
        if self._limits is not None:
            if not float(self._limits.excess(residual[None])) <= 1:
                return False
        elif self._last_norm <= self._atol:
            return True
        if not examinable(self._problem):
            return True
        self._count()
        start = self._all(self.start).abs()
        try:
            which = torch.arange(len(rows), device=rows.device) == self._row
            estimate = estimated(self._problem, rows, start, self._demand.xtol, which)
        except NoDerivativeError:  # Then nothing is known of the error.
            return True
        except Exception as raised:  # The equation's own, which passes the library.
            self._raised = raised
            raise
        error, distance = float(estimate.error[self._row]), float(estimate.to_zero[self._row])
        if bool(self._demand.met(estimate, self._problem.form)[self._row]):
            self._ledger.error[self.index] = float(estimate.stated[self._row])
            return True
        if not self._demand.closer(distance, self._distance):
            self._ledger.reasons[self.index] = reason(error, self._problem.form)
            self.end(Status.STALLED)
        self._distance = distance
        size = self._last_norm / self._threshold(x)
        self._factor = size * float(self._demand.reduction(np.float64(error)))
        return False

    def jacobian(self, x: Tensor) -> Tensor:
        """`∂r/∂z` at `x`, `(n, n)`; one evaluation, none if linear, and `n` products."""
        if not self._problem.linear:
            self._count()

        self.budget.counts.jvps += x.shape[0]

        def compute() -> Tensor:
            rows = self._all(x)
            return self._problem.linearization(rows).jacobian(rows)

        return self.call(compute)[self._row].detach()

    @property
    def differentiable(self) -> bool:
        """True if the problem gives a Jacobian."""
        return self._problem.linear or self._problem.linearize is not None

    def stepped(self) -> None:
        """Count a step of the library; end the run if it is not finite, cancelled, or at its limit."""
        self.steps += 1
        if not np.isfinite(self._last_norm):
            self.end(Status.NON_FINITE)
        self._announce()
        if self.steps >= self.budget.steps:
            self.end(Status.MAX_STEPS)

    def evaluated(self) -> None:
        """Count an evaluation as a step, for a library that reports no steps."""
        self.steps += 1
        self._announce()

    def _announce(self) -> None:
        ledger = self._ledger
        if not ledger.watched:
            return
        ledger.norms = ledger.norms.copy()
        ledger.norms[self.index] = self._last_norm
        if self.call(lambda: ledger.announce(self.steps, self._iterates)):
            self.cancelled = True
            self.end(Status.MAX_STEPS)

    def _iterates(self) -> Tensor:
        """The last point of this system, beside the kept ones of the others."""
        kept = self._ledger.z
        return kept.index_copy(0, torch.tensor([self.index], device=kept.device), self._last[None])

    def end(self, status: Status) -> NoReturn:
        """End the library's run from inside."""
        self._ledger.end(self.index, status, self.steps)
        raise Ended

    def run(
        self, library: Callable[[], Result], failures: tuple[type[Exception], ...]
    ) -> Result | None:
        """The result of `library()`; `None` where it was ended from inside or failed by itself.

        Args:
            library: Calls the library's solver.
            failures: Exceptions of the library that mean it cannot go on. All others pass, and so do
                those of the equation itself and those before any evaluation (an option has an
                impossible value).
        """
        try:
            return library()
        except Exception as error:
            if error is self._raised:
                raise
            if self._raised is not None:
                raise self._raised from error
            if self.ended:
                return None
            if self.evaluations == 0 or not isinstance(error, failures):
                raise
            self.ended_as(self.judged(Status.STALLED), f"{type(error).__name__}: {error}")
            return None

    def returned(self, x: Tensor, otherwise: Status, reason: str = "") -> None:
        """Judge `x`, the library's answer; a system that it does not solve keeps its best point."""
        if not torch.equal(x, self._last):
            self._stops = False
            self.budget = replace(self.budget, evaluations=math.inf)
            self.residual(x)
        if self._meets(x, self._last_norm):
            self.best = x
            self.ended_as(Status.CONVERGED)
        else:
            self.ended_as(self.judged(otherwise), reason)

    def judged(self, otherwise: Status) -> Status:
        """The status of a failure by the last residual: not finite, diverged, or `otherwise`."""
        rules = Rules(patience=1, patience_at_rounding=1, divergence=self._goal.stopping.divergence)
        code = verdict(
            rules, np.float64(self._last_norm), -1.0, self.first_norm, _NO_PROGRESS, 0,
            end_status=np.int64(otherwise),
        )  # fmt: skip
        return Status(int(code))

    def ended_as(self, status: Status, reason: str = "") -> None:
        """Write the status and its reason, once the library's run is over."""
        self._ledger.end(self.index, status, self.steps)
        if reason:
            self._ledger.reasons[self.index] = reason

    def _count(self) -> None:
        """Count an evaluation that is about to be made."""
        if self.budget.exhausted:
            self.end(Status.MAX_STEPS)
        self.budget.counts.evaluations += 1

    def _meets(self, x: Tensor, norm: float, margin: float = 1.0) -> bool:
        return norm <= margin * self._threshold(x)

    def _threshold(self, x: Tensor) -> float:
        reference = float(rms(x)) if self._reference is None else self._reference
        return float(threshold(self._rtol, self._atol, reference))

    def _all(self, x: Tensor) -> Tensor:
        if self._alone:
            return x.unsqueeze(0)
        where = torch.tensor([self._row], device=x.device)
        return self._rows.index_copy(0, where, x[None])

    def call(self, given: Callable[[], Result]) -> Result:
        """The result of `given()`, a function of the user; its exceptions pass through the library."""
        try:
            return given()
        except Exception as error:
            self._raised = error
            raise


def solve_each(
    problem: Problem,
    z: Tensor,
    residual: Tensor,
    goal: Goal,
    solve_one: Callable[[OneSystem], None],
    *,
    stops_at_goal: bool = True,
    default_steps: float = math.inf,
) -> RunOutcome:
    """Let `solve_one` solve every system that is not solved at the start `z`.

    Args:
        problem: The systems.
        z: The start, `(batch, n)`.
        residual: The residual at the start.
        goal: Tolerances and limits; each system has the whole limit on evaluations.
        solve_one: Runs a library on one system, by its `run`.
        stops_at_goal: End a run at the first evaluation that meets the goal.
        default_steps: Limit on the library's steps where the call has none.
    """
    ledger = Ledger(z, callback=goal.callback)
    ledger.norms = rms(residual).detach().cpu().numpy().astype(np.float64)
    going = ~goal.met(z, residual) & torch.isfinite(residual).all(dim=1)
    # Each system may use the evaluations left at the start, but for one, by which the driver judges the end.
    left = goal.budget.evaluations_left - 1
    limits = ResidualLimits.of(goal.stopping, z)
    rows, found = [], []
    for index in going.nonzero().flatten().tolist():
        own = goal.budget.within(goal.stopping, Counts(), default_steps)
        budget = replace(own, evaluations=left)
        own_limits = None if limits is None else limits.of_system(index)
        system = OneSystem(problem, index, goal, ledger, budget, stops_at_goal, own_limits)
        solve_one(system)
        rows.append(index)
        found.append(system.best)
        ledger.norms[index] = np.nan
        if system.cancelled:
            break
    if found:
        ledger.z = z.index_copy(0, torch.tensor(rows, device=z.device), torch.stack(found))
    return replace(ledger.outcome(), final=not stops_at_goal)
