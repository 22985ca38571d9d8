"""What a solver that runs whole is asked for: the driver's stopping rule, as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .problem import Problem
from .stopping import Stopping


@dataclass(frozen=True)
class Goal:
    """Tolerances and limits of one solve; norms are root-mean-square, entries are per system.

    Attributes:
        rtol: Relative tolerances, `(batch,)`.
        atol: The absolute tolerance.
        reference: What `rtol` is relative to, `(batch,)`, or `None` for the size of the iterate.
        max_steps: Limit on the solver's own steps.
        max_evaluations: Limit on evaluations of the equation, or `None`.
        stopping: The rule that these come from.
        callback: To be called with the step and the residual norms of all systems; a true result
            ends the solve.
        trace: Whether the residual norms of every check are asked for.
        held: Boolean, `(batch,)`: systems that take no part; `None` for none.

    Examples:
        >>> from implicitly.solvers import Problem
        >>> start = torch.ones(2, 1, dtype=torch.float64)
        >>> goal = Goal.of(Problem(torch.cos), Stopping(rtol=1e-3, atol=0.0), start, start)
        >>> goal.met(start, torch.tensor([[0.5], [1e-4]], dtype=torch.float64)).tolist()
        [False, True]
    """

    rtol: Tensor
    atol: float
    reference: Tensor | None
    max_steps: int
    max_evaluations: int | None
    stopping: Stopping
    callback: Callable[[int, np.ndarray], bool | None] | None = None
    trace: bool = False
    held: np.ndarray | None = None

    @staticmethod
    def of(
        problem: Problem,
        stopping: Stopping,
        z: Tensor,
        residual: Tensor,
        rtol: Tensor | None = None,
        reference: Tensor | None = None,
        max_steps: int = 100,
        callback: Callable[[int, np.ndarray], bool | None] | None = None,
        trace: bool = False,
        held: np.ndarray | None = None,
    ) -> Goal:
        """The goal of a solve from `z`, whose residual is `residual`."""
        precision = problem.precision or z.dtype
        if rtol is None:
            rtol = z.new_full((z.shape[0],), stopping.relative(precision))
        if problem.relative_to_iterate:
            reference = None
        elif reference is None:
            reference = rms(residual)
        return Goal(
            rtol=rtol,
            atol=stopping.absolute(z.dtype, problem.relative_to_iterate),
            reference=reference,
            max_steps=max_steps,
            max_evaluations=stopping.max_evaluations,
            stopping=stopping,
            callback=callback,
            trace=trace,
            held=held,
        )

    def threshold(self, z: Tensor) -> Tensor:
        """The largest residual norm of a solution at `z`, `(batch,)`."""
        return self.atol + self.rtol * (rms(z) if self.reference is None else self.reference)

    def met(self, z: Tensor, residual: Tensor) -> Tensor:
        """Which systems `z`, whose residual is `residual`, solves: boolean, `(batch,)`."""
        return rms(residual) <= self.threshold(z)


def rms(rows: Tensor) -> Tensor:
    """Root-mean-square norms of the rows, `(batch,)`."""
    return torch.linalg.vector_norm(rows, dim=1) / max(rows.shape[1], 1) ** 0.5
