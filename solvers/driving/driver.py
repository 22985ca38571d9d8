"""The one driver of all solvers: stopping, best iterate, status per system, trace, limits.

A solver only knows how to take a step for a batch of systems. The driver looks at the residual norms
every `check_every` steps, in one read-back from the device, and does the bookkeeping on the host:

* a system that meets its tolerance is frozen: the iterate of that moment is what comes back,
  whatever the others still do, so that no system changes another's answer or count;
* a system that stalls, diverges or turns NaN ends with that status and its best iterate;
* when half of the systems have ended and the problem can be restricted, the rest go on alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..interface.goal import Goal
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import Solver, WholeSolver
from ..interface.stopping import Stopping
from .end_states import EndStates
from .monitor import FlatSolution, Monitor

Callback = Callable[[int, np.ndarray], bool | None]


def solve(
    problem: Problem,
    solver: Solver,
    z: Tensor,
    stopping: Stopping | None = None,
    *,
    residual: Tensor | None = None,
    rtol: Tensor | None = None,
    reference: Tensor | None = None,
    callback: Callback | None = None,
    trace: bool = False,
    held: np.ndarray | None = None,
    ends: EndStates | None = None,
    sequence: int | None = None,
) -> FlatSolution:
    """Step `solver` on `problem` from `z` until every system has ended, or let it run whole.

    Args:
        problem: The systems to solve.
        solver: The update rule.
        z: The start, `(batch, n)`, finite.
        stopping: The stopping rule; `None` for the defaults of the dtype.
        residual: The residual at `z`, if known.
        rtol: A relative tolerance per system, `(batch,)`, in place of the one of `stopping`.
        reference: Residual norms (root-mean-square), `(batch,)`, that tolerances of roots and of
            linear equations are relative to, in place of those at `z`: for a solve which goes on
            from where another ended.
        callback: Called at each check with the step and the residual norms of all systems; a true
            result ends the solve (what has not converged gets `MAX_STEPS`).
        trace: Record the residual norms of every check.
        held: Boolean, `(batch,)`: systems that take no part. They stay where they are, are dropped
            or parked like finished ones, and have the status `MAX_STEPS` after 0 steps.
        ends: Takes the state in which each system ends.
        sequence: So many consecutive systems are the time steps of one sequence, each of which may
            depend on those before it: a system converges only once all before it have ended.

    Returns:
        The converged or best iterate of every system, with status, steps, and the residual norm
        of exactly that iterate.

    Raises:
        TypeError: A solver of linear equations meets a problem that is not linear.

    Examples:
        >>> from implicitly.solvers import FixedPointIteration, Problem, solve
        >>> result = solve(Problem(torch.cos), FixedPointIteration(), torch.zeros(1, 1))
        >>> Status(int(result.status[0])).name, round(result.z.item(), 4)
        ('CONVERGED', 0.7391)
    """
    if solver.linear_only and not problem.linear:
        raise TypeError(
            f"{type(solver).__name__} solves linear equations only, and this equation is not known "
            "to be linear; use a nonlinear solver such as Anderson, Broyden or NewtonKrylov"
        )
    stopping = stopping or Stopping()
    max_steps = solver.default_max_steps if stopping.max_steps is None else stopping.max_steps
    max_evaluations = stopping.max_evaluations
    check_every = stopping.check_every or (1 if z.device.type == "cpu" else 4)
    problem.unpark()  # An earlier solve may have left systems parked.
    if residual is None:
        residual = problem.residual(z)
    monitor = Monitor(problem, solver, stopping, z, residual, rtol, reference, trace, sequence)
    if held is not None:
        monitor.hold(held)
    if isinstance(solver, WholeSolver):
        goal = Goal.of(
            problem, stopping, z, residual, rtol, reference, max_steps, callback, trace, held
        )
        return _run_whole(problem, solver, z, residual, goal, monitor)

    state = solver.init(problem, z, residual)
    step = 0
    while True:
        last = step >= max_steps or (
            max_evaluations is not None and problem.counts.evaluations >= max_evaluations
        )
        if last or step % check_every == 0:
            running = monitor.running
            newly_ended = monitor.look(state, step, last) or (step == 0 and held is not None)
            if callback is not None and callback(step, monitor.norms):
                monitor.end_running(state, step)
                last = True
            if ends is not None:
                ends.take(state, *monitor.places(running & ~monitor.running))
            if monitor.all_ended:
                if not solver.confirm_residual:
                    break
                residual = monitor.confirm(last)
                if monitor.all_ended:
                    break
                state = solver.init(monitor.problem, monitor.z, residual)
            elif newly_ended:
                state = monitor.thin_out(state)
        state = solver.step(monitor.problem, state)
        step += 1
    monitor.accept_rounding()
    return monitor.solution()


class _Point(NamedTuple):
    """An iterate of a solver that runs whole, as a state."""

    z: Tensor
    residual: Tensor | None
    failed: Tensor | None = None
    norm: Tensor | None = None


def _run_whole(
    problem: Problem,
    solver: WholeSolver,
    z: Tensor,
    residual: Tensor,
    goal: Goal,
    monitor: Monitor,
) -> FlatSolution:
    """Let `solver` run; what it returns is evaluated again and judged like any other iterate."""
    monitor.look(_Point(z, residual), 0, goal.max_steps == 0)
    if monitor.all_ended:
        return monitor.solution()
    outcome = solver.run(problem, z, residual, goal)
    problem.unpark()
    running = np.asarray(monitor.running)
    failed = np.where(outcome.status == Status.RUNNING, int(Status.MAX_STEPS), outcome.status)
    if outcome.residual is None:
        failed = np.where(failed == Status.CONVERGED, int(Status.STALLED), failed)
    failures = torch.from_numpy(failed.astype(np.int64)).to(z.device)
    if outcome.residual is None:
        end = _Point(outcome.z, problem.residual(outcome.z), failures)
    else:
        end = _Point(outcome.z, None, failures, monitor.as_read(outcome.residual))
    monitor.look(end, 1, True)
    monitor.count_steps(np.where(running, outcome.steps, 0))
    monitor.take_trace(outcome.trace)
    monitor.accept_rounding()
    return replace(monitor.solution(), reasons=outcome.reasons)
