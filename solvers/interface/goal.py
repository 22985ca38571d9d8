"""The stopping rule of one solve, for solvers with their own loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .check import Watcher
from .norms import rms
from .problem import Problem
from .stopping import Stopping
from .tolerance import Budget, Tolerance, threshold


@dataclass(frozen=True)
class Goal:
    """Tolerances and limits of one solve; norms are root-mean-square, entries are per system.

    Attributes:
        tolerance: The tolerances.
        reference: The norms that relative tolerances refer to, `(batch,)`; `None` for the size of
            the iterate.
        budget: Limits on the solver's own steps and on evaluations.
        stopping: The rule that these come from.
        callback: To be called with a `Check`; a true result ends the solve.
        trace: The residual norms of every check are asked for.
        held: Boolean, `(batch,)`: systems that take no part; `None` for none.

    Examples:
        >>> from implicitly.solvers import Problem
        >>> start = torch.ones(2, 1, dtype=torch.float64)
        >>> goal = Goal.of(Problem(torch.cos), Stopping(rtol=1e-3, atol=0.0), start, start)
        >>> goal.met(start, torch.tensor([[0.5], [1e-4]], dtype=torch.float64)).tolist()
        [False, True]
    """

    tolerance: Tolerance
    reference: Tensor | None
    budget: Budget
    stopping: Stopping
    callback: Watcher | None = None
    trace: bool = False
    held: np.ndarray | None = None

    @staticmethod
    def of(
        problem: Problem,
        stopping: Stopping,
        z: Tensor,
        residual: Tensor,
        *,
        tolerance: Tolerance | None = None,
        budget: Budget | None = None,
        reference: Tensor | None = None,
        **asked: Any,
    ) -> Goal:
        """The goal of a solve from `z`, whose residual is `residual`."""
        tolerance = tolerance or Tolerance.of(problem, stopping, z)
        if problem.relative_to_iterate:
            reference = None
            size = torch.maximum(rms(z), rms(residual)).detach()
            tolerance = tolerance.begun(size.cpu().numpy().astype(np.float64))
        elif reference is None:
            reference = rms(residual)
        return Goal(
            tolerance,
            reference,
            budget or Budget.of(stopping, problem.counts),
            stopping,
            **asked,
        )

    def threshold(self, z: Tensor) -> Tensor:
        """The largest residual norm of a solution at `z`, `(batch,)`."""
        reference = rms(z) if self.reference is None else self.reference
        result: Tensor = threshold(*self.tolerance.on(reference), reference)
        return result

    def met(self, z: Tensor, residual: Tensor) -> Tensor:
        """Which systems `z`, whose residual is `residual`, solves: boolean, `(batch,)`."""
        return rms(residual) <= self.threshold(z)

    def lowered(self, factor: np.ndarray, held: np.ndarray) -> Goal:
        """The goal with thresholds multiplied by `factor`, for the systems that are not `held`."""
        rtol, atol = self.tolerance.rtol * factor, self.tolerance.atol * factor
        tolerance = replace(self.tolerance, rtol=rtol, atol=atol)
        return replace(self, tolerance=tolerance, held=held)
