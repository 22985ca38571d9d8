"""The solve of a call on tensors without gradients: from leaves to a flat problem and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...solvers import FlatSolution, Status
from ...solvers.driving.driver import solve
from ...solvers.driving.end_states import EndStates
from ...solvers.interface.norms import rms
from ...solvers.interface.problem import Problem
from ..equations.boxes import check_box
from ..equations.derived import Packed
from ..equations.differentiation import coarsest
from ..equations.equation import Equation
from ..equations.flat import flat_problem
from ..equations.hooks import without_hooks
from ..equations.layout import Layout, Leaves
from ..gradients.mode import ImplicitGradient
from ..surroundings.autocast import without_autocast
from ..surroundings.failure import check_start, handle_failure, with_edges_named
from ..surroundings.refinement import refined, refines
from ..surroundings.tracing import refuse_tracing
from ..surroundings.watching import flat_watcher
from .call import Asking, Call
from .outcome import CallOutcome, Solved


def solved(call: Call, asking: Asking, z0: Leaves, args: Leaves) -> CallOutcome:
    """The outcome if it is known already, or a solve on plain tensors."""
    outcome = asking.outcome
    if outcome is None:
        with without_autocast(), without_hooks():
            outcome = _solve(call, asking, z0, args)
    # An output must not be an input, and a solve may return its start.
    value = tuple(
        leaf.clone() if any(_share(leaf, start) for start in z0) else leaf for leaf in outcome.value
    )
    return outcome._replace(value=value)


def _solve(call: Call, asking: Asking, z0: Leaves, args: Leaves) -> CallOutcome:
    """Solve on plain tensors."""
    equation, record = call.equation, asking.record
    refuse_tracing(equation.described)
    layout = Layout.of(z0, equation.batch_dims)
    first, evaluations = asking.first, 1
    if asking.from_zero:
        first, evaluations = Packed.of(args, call.leaves).constant, 0
    elif first is None:
        first = equation.evaluate(z0, args)
    precision = coarsest((*z0, *first), asking.precision)
    problem = flat_problem(equation, layout, args, precision)
    problem.counts.evaluations = evaluations
    z, value = layout.flatten(z0), layout.flatten(first)
    if problem.box is not None:
        check_box(problem.box, z, layout)
    if call.gradient.keeps_inverse and record.order == 0:
        record.ends = EndStates()
    record.batch_shape = tuple(layout.batch_shape)
    solver = call.solver
    if equation.derivatives is not None:
        solver = equation.derivatives.solver(solver, layout, z)
    result = solve(
        problem,
        solver,
        z,
        call.stopping,
        residual=_residual_at_start(equation, z, value, asking),
        callback=flat_watcher(asking.callback, asking.build, layout) if asking.callback else None,
        trace=asking.trace,
        ends=record.ends,
        sequence=max(layout.batch_shape[-1], 1) if equation.causal else None,
    )
    if not call.solver.judges_start:
        check_start(equation.described, z, result.status, result.steps)
    # Modes that follow the steps of the solver, and causal equations, keep its own last iterate.
    kept = layout.narrows or equation.causal or call.solver.judges_start
    free = record.ends is None and not kept
    if free and isinstance(call.gradient, ImplicitGradient) and refines(problem, call.stopping):
        result = refined(problem, solver, result)
    return _recorded(call, asking, args, problem, layout, precision, result)


def _recorded(
    call: Call,
    asking: Asking,
    args: Leaves,
    problem: Problem,
    layout: Layout,
    precision: torch.dtype,
    result: FlatSolution,
) -> CallOutcome:
    """Take note of the end of a solve, and do what is asked for where it failed."""
    equation, record = call.equation, asking.record
    record.counts, record.trace, record.best_steps = problem.counts, result.trace, result.best_step
    without_solution = None
    if record.order > 0 and (result.status == Status.NON_FINITE).any():
        constant = layout.flatten(Packed.of(args, call.leaves).constant)
        without_solution = ~torch.isfinite(constant).all(dim=1)
        result = replace(result, z=result.z.masked_fill(without_solution.unsqueeze(1), torch.nan))
    outcome = _outcome(problem, layout, result)
    if without_solution is not None:
        # No failure: a gradient that overflows is what a scaler of gradients waits for.
        status = np.where(without_solution.cpu().numpy(), int(Status.CONVERGED), result.status)
        result = replace(result, status=status)
    if asking.on_failure != "accept" and (result.status != Status.CONVERGED).any():
        result = with_edges_named(problem, result)
    if record.order == 0:
        norms = result.residual_norm
        if layout.narrows:
            norms = outcome.residual_norm.flatten().cpu().double().numpy()
        record.solved = Solved(norms, result.status == Status.CONVERGED, precision)
    handle_failure(
        asking.on_failure,
        equation.described,
        call.solver,
        result,
        record.batch_shape,
        lambda: record.solution(asking.build(outcome.value), outcome),
    )
    record.note(outcome)
    return outcome


def _residual_at_start(equation: Equation, z: Tensor, value: Tensor, asking: Asking) -> Tensor:
    """The residual at the start, without a copy of the constant where that is all of it."""
    if equation.form == "root":
        return -value
    return value if asking.from_zero else value - z


def _outcome(problem: Problem, layout: Layout, result: FlatSolution) -> CallOutcome:
    """The flat result in the shapes and dtypes of the unknown."""
    value, norms = layout.unflatten(result.z), torch.from_numpy(result.residual_norm)
    if layout.narrows:
        # The value is rounded to the narrower dtype of the unknown, so its residual is evaluated again.
        problem.unpark()
        norms = rms(problem.residual(layout.flatten(value)))

    def per_system(entries: Tensor, dtype: torch.dtype) -> Tensor:
        return entries.to(result.z.device, dtype).reshape(layout.batch_shape)

    return CallOutcome(
        value,
        per_system(torch.from_numpy(result.status), torch.int8),
        per_system(norms, layout.dtype),
        per_system(torch.from_numpy(result.steps), torch.int64),
        per_system(torch.from_numpy(result.best_step), torch.int64),
        per_system(torch.from_numpy(result.error), layout.dtype),
    )


def _share(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
