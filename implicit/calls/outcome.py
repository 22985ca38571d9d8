"""Result of a call inside autograd: its tensors, and a record of everything else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...solvers import Counts, Solution
from ...solvers.driving.end_states import EndStates
from ..equations.layout import Leaves


class CallOutcome(NamedTuple):
    """Tensors that a call returns: the value, and in each of the others an entry per system."""

    value: Leaves
    status: Tensor
    residual_norm: Tensor
    steps: Tensor
    best_step: Tensor
    """The solver step that reached the value: on failure not the last."""
    error: Tensor
    """Estimates of the relative error of the value; NaN where unknown."""

    @staticmethod
    def of(tensors: Leaves, leaves: int) -> CallOutcome:
        """The outcome from one flat tuple, whose first `leaves` tensors are the value."""
        return CallOutcome(tensors[:leaves], *tensors[leaves:])


class Solved(NamedTuple):
    """The end of a solve, one entry per system."""

    norm: np.ndarray
    converged: np.ndarray
    precision: torch.dtype
    """The dtype in which the function computes."""


@dataclass
class Record:
    """Everything else that a call produces: plain numbers, and tensors without wrappers.

    Attributes:
        order: Order of the derivative: 0 for the equation given by the user.
        adjoints: Solutions of derived equations; entry `k` is the newest of order `k + 1`.
        counts: The work done.
        trace: Residual norms of every check, if asked for.
        best_steps: The solver step that reached the value, for each system.
        ends: The states that the solver ended in, if the gradient mode keeps them.
        batch_shape: The shape of the batch that was solved.
        solved: Residual norms at the end, for the equation given by the user.
    """

    order: int = 0
    adjoints: list[Solution] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    trace: np.ndarray | None = None
    best_steps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    ends: EndStates | None = None
    batch_shape: tuple[int, ...] = ()
    solved: Solved | None = None

    def derived(self) -> Record:
        """The record of an equation derived from this one's."""
        return Record(self.order + 1, self.adjoints)

    def solution(self, value: Any, outcome: CallOutcome) -> Solution:
        """The public form of `outcome`, with `value` in the structure that the caller expects."""
        return Solution(
            value=value,
            status=outcome.status,
            residual_norm=outcome.residual_norm,
            steps=outcome.steps,
            error=outcome.error,
            counts=self.counts,
            trace=self.trace,
            adjoints=[] if self.order else self.adjoints,
        )

    def note(self, outcome: CallOutcome) -> None:
        """Add the solution of a derived equation to the adjoints."""
        if self.order > 0:
            # Detached, because an output reachable from its own graph lives until the collector runs.
            self.adjoints[self.order - 1 :] = [self.solution(outcome.value, outcome).detach()]
