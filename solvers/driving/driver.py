"""The one driver of all solvers: stopping, best iterate, status per system, trace, limits.

A solver only knows how to take a step for a batch of systems. The driver looks at the residual norms
every `check_every` steps, in one read-back from the device, and does the bookkeeping on the host:

* a system that meets its tolerance is frozen: the iterate of that moment is what comes back,
  whatever the others still do, so that no system changes another's answer or count;
* a system that stalls, diverges or turns NaN ends with that status and its best iterate;
* when half of the systems have ended and the problem can be restricted, the rest go on alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..interface.check import Callback, Watcher
from ..interface.goal import Goal
from ..interface.norms import rms_unit
from ..interface.problem import Problem
from ..interface.solution import FlatSolution, Status
from ..interface.solver import RunOutcome, Solver, WholeSolver
from ..interface.stopping import DEFAULTS, Stopping
from ..interface.tolerance import Budget, Tolerance
from . import plain_run
from .end_states import EndStates
from .ledger import Ledger
from .limits import ResidualLimits
from .minima import check_minima
from .monitor import Monitor
from .scaling import Units
from .trials import guarded


def solve(
    problem: Problem,
    solver: Solver,
    z: Tensor,
    stopping: Stopping | None = None,
    *,
    residual: Tensor | None = None,
    tolerance: Tolerance | None = None,
    reference: Tensor | None = None,
    callback: Callback | Watcher | None = None,
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
        tolerance: Tolerances per system, in place of those of `stopping`: for a part of another solve.
        reference: Residual norms (root-mean-square), `(batch,)`, that tolerances of roots and of
            linear equations are relative to, in place of those at `z`: for a solve which goes on
            from where another ended.
        callback: Called at each check with a `Check`, or with the step and the residual norms of all
            systems; a true result ends the solve (what has not converged gets `MAX_STEPS`).
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
        TypeError: A solver of linear equations meets a problem that is not linear, or one that keeps no
            bounds a problem with them.

    Examples:
        >>> from implicitly.solvers import FixedPointIteration, Problem, solve
        >>> result = solve(Problem(torch.cos), FixedPointIteration(), torch.zeros(1, 1))
        >>> Status(int(result.status[0])).name, round(result.z.item(), 4)
        ('CONVERGED', 0.7391)
    """
    _check_suits(problem, solver)
    stopping = stopping or DEFAULTS
    problem.unpark()  # An earlier solve may have left systems parked.
    if residual is None:
        residual = problem.residual(z)
    # A solve within another has the units of that one, and a state that is asked for those of the caller.
    outermost = tolerance is None and reference is None and ends is None
    inner = tolerance is not None or reference is not None or held is not None
    watcher = None if callback is None else Watcher.of(callback)
    raised: dict[int, str] = {}
    if outermost:
        problem = guarded(problem, z, raised)
    units = Units.of(problem, z, residual) if outermost else None
    if units is not None:
        problem, residual = units.problem(problem, z), residual * units.equation
        z = z * units.unknown
        watcher, stopping = units.watcher(watcher), units.stopping(stopping, z)
    ledger, start = Ledger(z, callback=watcher, trace=trace), z
    limits = ResidualLimits.of(stopping, z)
    if tolerance is None:
        typical = None if limits is None else limits.typical()
        tolerance = Tolerance.of(problem, stopping, z, typical)
        if units is not None:
            tolerance = replace(tolerance, atol=units.atol(tolerance.atol, stopping))
    budget = Budget.of(stopping, problem.counts, solver.default_max_steps)
    monitor = Monitor(
        problem, solver, stopping, tolerance, budget, ledger, residual, reference, sequence, limits,
        inner=inner,
    )  # fmt: skip
    if held is not None:
        monitor.hold(held)
    if isinstance(solver, WholeSolver):
        goal = Goal.of(
            problem, stopping, z, residual,
            tolerance=tolerance, budget=budget, reference=reference,
            callback=watcher, trace=trace, held=held,
        )  # fmt: skip
        _run_whole(problem, solver, z, residual, goal, monitor)
    else:
        _run_steps(problem, solver, z, residual, monitor, stopping, ends)
    monitor.acceptance.reconsider(monitor.rounding.within())
    if problem.objective is not None:
        check_minima(monitor.active.restore(), ledger, start)
    for system, why in raised.items():
        ledger.reasons.setdefault(system, why)
    solution = ledger.solution(problem.counts)
    return solution if units is None else units.back(solution)


def _check_suits(problem: Problem, solver: Solver) -> None:
    """Raise a `TypeError` for a solver of other problems."""
    if solver.linear_only and not problem.linear:
        raise TypeError(
            f"{type(solver).__name__} solves linear equations only, and this equation is not known "
            "to be linear; use a nonlinear solver such as Anderson, Broyden or NewtonKrylov"
        )
    if problem.box is not None and not solver.keeps_bounds:
        raise TypeError(
            f"{type(solver).__name__} does not keep its iterates within bounds: leave solver out, or give "
            "ProjectedNewton() to root and fixed_point, GaussNewton() to least_squares, NewtonTrustRegion() "
            "to minimise"
        )


def _run_steps(
    problem: Problem,
    solver: Solver,
    z: Tensor,
    residual: Tensor,
    monitor: Monitor,
    stopping: Stopping,
    ends: EndStates | None,
) -> None:
    """Step `solver` until every system has ended."""
    ledger, active = monitor.ledger, monitor.active
    check_every = stopping.check_every or (1 if z.device.type == "cpu" else 4)
    state = solver.init(problem, z, residual)
    # Looks of steps that the driver takes by itself are not seen by anybody else.
    plainly = check_every == 1 and not ledger.watched and z.device.type == "cpu"
    step = total = 0
    while True:
        last = monitor.limited(step)
        if last or step % check_every == 0:
            running = None if monitor.all_run else ledger.running
            changed = monitor.look(state, step) or (step == 0 and running is not None)
            if ledger.watched:
                monitor.settle()
                ledger.record()
                if ledger.announce(total, partial(monitor.iterates, state)):
                    monitor.stop(state, step)
            if ends is not None:
                before = np.ones_like(ledger.running) if running is None else running
                ends.take(state, *active.places(before & ~ledger.running))
            if not monitor.all_run and ledger.all_ended:
                found = monitor.confirm()
                if found is None or ledger.all_ended:
                    return
                state, step = solver.init(active.problem, ledger.z, found), 0
                continue
            if changed:
                state = active.thin_out(state)
        plain = solver.plain_steps(active.problem, state) if plainly and monitor.all_run else None
        if plain is not None:
            state, step = plain_run.run(plain, state.z, state.residual, monitor, step)
            continue
        state = solver.step(active.problem, state)
        step, total = step + 1, total + 1


class _Point(NamedTuple):
    """An iterate of a solver that runs whole, as a state."""

    z: Tensor
    residual: Tensor | None
    end_status: Tensor | None = None
    norm: Tensor | None = None


def _run_whole(
    problem: Problem,
    solver: WholeSolver,
    z: Tensor,
    residual: Tensor,
    goal: Goal,
    monitor: Monitor,
) -> None:
    """Let `solver` run; what it returns is evaluated again and judged like any other iterate."""
    ledger = monitor.ledger
    monitor.look(_Point(z, residual), 0)
    monitor.settle()
    ledger.record()
    if ledger.all_ended:
        found = monitor.examine(can_go_on=True)
        if found is None:
            return
        residual, goal = found, goal.lowered(monitor.acceptance.factor, ~ledger.running)
    while True:
        running, before = ledger.running, ledger.steps
        outcome = solver.run(problem, ledger.z, residual, goal)
        problem.unpark()
        monitor.look(_judged(problem, outcome), 1, last=True)
        ledger.record()
        monitor.acceptance.settle(ledger.take_over(outcome, running, before))
        found = monitor.examine(can_go_on=not outcome.final)
        if found is None:
            return
        # Again, from where the refused systems are, for a smaller residual.
        residual = found
        goal = goal.lowered(monitor.acceptance.factor, ~ledger.running)


def _judged(problem: Problem, outcome: RunOutcome) -> _Point:
    """The end of a run with its own opinion of that; only a residual counts as convergence."""
    codes = np.where(outcome.status == Status.RUNNING, int(Status.MAX_STEPS), outcome.status)
    if outcome.residual_norm is None:
        codes = np.where(codes == Status.CONVERGED, int(Status.STALLED), codes)
        residual = problem.residual(outcome.z)
        problem.note(outcome.z, residual)
        norm = torch.linalg.vector_norm(residual, dim=1)
    else:
        unit = rms_unit(outcome.z.shape[1])
        norm = torch.from_numpy(outcome.residual_norm / unit).to(outcome.z)
    end_status = torch.from_numpy(codes.astype(np.int64)).to(outcome.z.device)
    return _Point(outcome.z, None, end_status, norm)
