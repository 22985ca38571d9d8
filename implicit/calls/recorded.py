"""The solve of a call whose gradient mode may follow the iterations."""

from __future__ import annotations

from dataclasses import dataclass

from ...solvers import Solver
from ..equations.differentiation import constants, derivative_wanted
from ..equations.equation import Equation
from ..equations.layout import Leaves
from ..gradients import TapedGradient
from ..rule import solve_call
from ..surroundings.autocast import without_autocast
from .call import Asking, Call
from .outcome import CallOutcome, Record


@dataclass(frozen=True)
class _Recording:
    """A solve whose iterations its gradient mode records."""

    equation: Equation
    solver: Solver
    start: Leaves
    args: Leaves
    outcome: CallOutcome
    record: Record


def differentiable(call: Call, asking: Asking, start: Leaves, args: Leaves) -> CallOutcome:
    """The outcome of a call, with the derivatives of its gradient mode."""
    if not isinstance(call.gradient, TapedGradient):
        return solve_call(call, constants(start), args, asking)
    outcome = solve_call(call, constants(start), constants(args), asking)
    if not derivative_wanted((*start, *args)):
        return outcome
    recording = _Recording(call.equation, call.solver, start, args, outcome, asking.record)
    with without_autocast():
        return outcome._replace(value=call.gradient.record(recording))
