"""A call as data: the equation with its solver and gradient mode, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ...solvers import Solver, Stopping
from ...solvers.interface.check import Watcher
from ..equations.equation import Equation
from ..equations.layout import Leaves
from ..gradients.mode import ImplicitGradient, TapedGradient
from ..surroundings.failure import FailurePolicy
from .outcome import CallOutcome, Record


@dataclass(frozen=True)
class Call:
    """An equation with its solver, stopping rule and gradient mode.

    Attributes:
        equation: The equation.
        solver: The solver.
        stopping: The stopping rule; `None` for the defaults of the dtype.
        gradient: The gradient mode.
        leaves: Number of tensors of the unknown.
    """

    equation: Equation
    solver: Solver
    stopping: Stopping | None
    gradient: ImplicitGradient | TapedGradient
    leaves: int


@dataclass(frozen=True)
class Asking:
    """One request for the solution of a call: the output asked for, and the values known already.

    Attributes:
        record: Receives everything but the tensors of the outcome.
        on_failure: The policy for systems that are not solved.
        trace: Record the residual norms of every check.
        callback: Called at every check.
        first: The value of the equation's function at the start, if known.
        from_zero: The equation is a derived one and starts at zero, where its value is its constant.
        precision: The dtype that the given function computes in, if coarser than that of its values.
        outcome: The result, if it is known already.
        build: Puts leaves of the unknown in the structure of `z0`, for the solution that an error carries.
    """

    record: Record = field(default_factory=Record)
    on_failure: FailurePolicy = "raise"
    trace: bool = False
    callback: Watcher | None = None
    first: Leaves | None = None
    from_zero: bool = False
    precision: torch.dtype | None = None
    outcome: CallOutcome | None = None
    build: Callable[[Leaves], Any] = tuple

    def again(self) -> Asking:
        """The same request for another start."""
        return replace(self, first=None, outcome=None)
