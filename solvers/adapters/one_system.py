"""The systems of a batch one at a time, for libraries that solve one system."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..interface.goal import Goal, rms
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import Outcome

Result = TypeVar("Result")

# The driver reads the norm of what comes back from an evaluation of the whole batch, which may be
# rounded otherwise.
_MARGIN = 0.99


class Ended(Exception):  # noqa: N818 - not an error
    """Passes through a library's solver from a function that it calls, to end it."""


class OneSystem:
    """One system of a batch: its evaluations, counted and judged, and how it ended.

    Where the problem can be restricted, it is evaluated for this system alone, else for all with the
    others held at their start, so that no system sees another.

    Attributes:
        index: Its place in the batch.
        start: Where it starts, `(n,)`.
        best: The point of the smallest residual seen.
        evaluations: Evaluations of its residual.
        steps: Steps of the library, as far as it reports them.
        max_steps: Limit on these; what the call says, if anything.
        first_norm: The residual norm at the start.
        status: How it ended; `RUNNING` until then.
        reason: What the library says of that.
    """

    def __init__(
        self,
        problem: Problem,
        z: Tensor,
        index: int,
        goal: Goal,
        norms: np.ndarray,
        limit: float,
        stops_at_goal: bool,
    ) -> None:
        self.index = index
        self.start = z[index].detach()
        if problem.restrict is None:
            self._problem, self._rows, self._row = problem, z.detach(), index
        else:
            alone = torch.tensor([index], device=z.device)
            self._problem, self._rows, self._row = problem.restrict(alone), self.start[None], 0
        self._alone = self._rows.shape[0] == 1
        self._goal = goal
        self._norms = norms
        self.first_norm = float(norms[index])
        self._rtol = float(goal.rtol[index])
        self._reference = None if goal.reference is None else float(goal.reference[index])
        self._stops = stops_at_goal
        self._limit = limit
        self._raised: Exception | None = None

        self.best = self._last = self.start
        self._best_norm = self._last_norm = self.first_norm
        self.evaluations = 0
        self.steps = 0
        given = goal.stopping.max_steps
        self.max_steps: float = np.inf if given is None else given
        self.status = Status.RUNNING
        self.reason = ""
        self.cancelled = False

    def residual(self, x: Tensor) -> Tensor:
        """The residual at `x`; both `(n,)`."""
        self._count()
        residual = self.call(lambda: self._problem.residual(self._all(x)))[self._row].detach()
        norm = float(rms(residual.unsqueeze(0)))
        self._last, self._last_norm = x, norm
        if norm < self._best_norm:
            self.best, self._best_norm = x, norm
        if self._stops and self._meets(x, norm):
            self.best = x
            self.end(Status.CONVERGED)
        return residual

    def jacobian(self, x: Tensor) -> Tensor:
        """`∂r/∂z` at `x`, `(n, n)`; one evaluation, none if linear, and `n` products."""
        if not self._problem.linear:
            self._count()

        def compute() -> Tensor:
            rows = self._all(x)
            return self._problem.linearization(rows).jacobian(rows)

        return self.call(compute)[self._row].detach()

    @property
    def differentiable(self) -> bool:
        """Whether there is a Jacobian."""
        return self._problem.linear or self._problem.linearize is not None

    def stepped(self) -> None:
        """Take note of a step of the library; ends a run-away, and what the caller wants ended."""
        self.steps += 1
        if not np.isfinite(self._last_norm):
            self.end(Status.NON_FINITE)
        self.announce(self.steps)
        if self.steps >= self.max_steps:
            self.end(Status.MAX_STEPS)

    def evaluated(self) -> None:
        """Take note of an evaluation, the step of a library that reports no others."""
        self.steps += 1
        self.announce(self.steps)

    def announce(self, step: int) -> None:
        """Tell the caller's callback of a step, and end where it says so."""
        if self._goal.callback is None:
            return
        self._norms[self.index] = self._last_norm
        callback, norms = self._goal.callback, self._norms.copy()
        if self.call(lambda: callback(step, norms)):
            self.cancelled = True
            self.end(Status.MAX_STEPS)

    def end(self, status: Status) -> NoReturn:
        """End the library's run from inside."""
        self.status = status
        raise Ended

    def run(
        self, library: Callable[[], Result], failures: tuple[type[Exception], ...]
    ) -> Result | None:
        """What `library()` returns; `None` where it was ended from inside or failed by itself.

        Args:
            library: Calls the library's solver.
            failures: What the library raises where it cannot go on. Whatever the equation itself
                raises, everything else, and what is raised before any evaluation (an option has an
                impossible value) passes.
        """
        try:
            return library()
        except Exception as error:
            if error is self._raised:
                raise
            if self._raised is not None:
                raise self._raised from error
            if self.status != Status.RUNNING:
                return None
            if self.evaluations == 0 or not isinstance(error, failures):
                raise
            self.reason = f"{type(error).__name__}: {error}"
            self.status = self.judged(Status.STALLED)
            return None

    def returned(self, x: Tensor, otherwise: Status, reason: str = "") -> None:
        """Take `x` as the library's answer; a system that it does not solve has the best instead."""
        if not torch.equal(x, self._last):
            self._stops = False
            self._limit = np.inf
            self.residual(x)
        if self._meets(x, self._last_norm, margin=1.0):
            self.best, self.status = x, Status.CONVERGED
        else:
            self.status, self.reason = self.judged(otherwise), reason

    def judged(self, otherwise: Status) -> Status:
        """What the last residual says of a failure."""
        if not np.isfinite(self._last_norm):
            return Status.NON_FINITE
        if self._last_norm > self._goal.stopping.divergence * self.first_norm:
            return Status.DIVERGED
        return otherwise

    def _count(self) -> None:
        """Count an evaluation that is about to be made."""
        if self.evaluations >= self._limit:
            self.end(Status.MAX_STEPS)
        self.evaluations += 1

    def _meets(self, x: Tensor, norm: float, margin: float = _MARGIN) -> bool:
        size = float(rms(x.unsqueeze(0))) if self._reference is None else self._reference
        return norm <= margin * (self._goal.atol + self._rtol * size)

    def _all(self, x: Tensor) -> Tensor:
        if self._alone:
            return x.unsqueeze(0)
        where = torch.tensor([self._row], device=x.device)
        return self._rows.index_copy(0, where, x[None])

    def call(self, given: Callable[[], Result]) -> Result:
        """What `given()` returns, a function of the user's; what it raises passes the library."""
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
    stops_at_goal: bool = True,
) -> Outcome:
    """Let `solve_one` solve every system that is not solved at the start `z`.

    Args:
        problem: The systems.
        z: Where they start, `(batch, n)`.
        residual: The residual there.
        goal: Tolerances and limits; that on evaluations holds for each system.
        solve_one: Runs a library on one system, by its `run`.
        stops_at_goal: Whether a run ends with the first evaluation that meets the goal.
    """
    batch = z.shape[0]
    status = np.full(batch, Status.RUNNING, dtype=np.int8)
    steps = np.zeros(batch, dtype=np.int64)
    reasons: dict[int, str] = {}
    norms = rms(residual).detach().cpu().numpy().astype(np.float64)
    going = ~goal.met(z, residual) & torch.isfinite(residual).all(dim=1)
    limit = np.inf
    if goal.max_evaluations is not None:
        # Each system has what is left at the start; the driver's evaluation of the end is one of it.
        limit = goal.max_evaluations - problem.counts.evaluations - 1
    rows, found = [], []
    for index in going.nonzero().flatten().tolist():
        system = OneSystem(problem, z, index, goal, norms, limit, stops_at_goal)
        solve_one(system)
        status[index], steps[index] = system.status, system.steps
        if system.reason:
            reasons[index] = system.reason
        rows.append(index)
        found.append(system.best)
        norms[index] = np.nan
        if system.cancelled:
            break
    if found:
        z = z.index_copy(0, torch.tensor(rows, device=z.device), torch.stack(found))
    return Outcome(z, status, steps, reasons)
