"""The largest residual norm of a solution, and the work that may be spent on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .problem import Problem
from .solution import Counts
from .stopping import Stopping


def threshold(rtol: Any, atol: Any, reference: Any) -> Any:
    """The largest norm that counts as converged, for numbers, arrays or tensors of them.

    The reference is the size of the iterate for a fixed point, and the residual at the start for a
    root or a linear equation.
    """
    return atol + rtol * reference


@dataclass(frozen=True)
class Tolerance:
    """The tolerances of one solve; norms are root-mean-square, arrays have one entry per system.

    Attributes:
        rtol: Relative tolerances, `(batch,)`.
        atol: The absolute tolerance, or one for each system.
        is_default: The relative tolerance is that of the dtype: nobody asked for it.
        relative_to_iterate: The reference is the size of the iterate.
        zero: The part of the size of the start which is as good as zero.
    """

    rtol: np.ndarray
    atol: float | np.ndarray
    is_default: bool
    relative_to_iterate: bool
    zero: float = 0.0

    @staticmethod
    def of(
        problem: Problem, stopping: Stopping, z: Tensor, rtol: Tensor | None = None
    ) -> Tolerance:
        """The tolerances of a solve from `z`; `rtol` per system in place of the one of `stopping`."""
        # Where the reference is the first residual, no absolute tolerance is needed.
        ends_at_zero = problem.relative_to_iterate and stopping.atol is None
        if rtol is None:
            relative = np.full(z.shape[0], stopping.relative(problem.dtype(z)))
        else:
            relative = rtol.detach().cpu().numpy().astype(np.float64)
        return Tolerance(
            rtol=relative,
            atol=stopping.atol or 0.0,
            is_default=rtol is None and stopping.rtol is None,
            relative_to_iterate=problem.relative_to_iterate,
            zero=torch.finfo(z.dtype).eps ** 2 if ends_at_zero else 0.0,
        )

    def begun(self, size: np.ndarray) -> Tolerance:
        """The tolerances of a solve whose start, or the residual there, has these sizes."""
        if self.zero == 0:
            return self
        return replace(self, atol=self.zero * np.where(np.isfinite(size), size, 0.0))

    def threshold(self, reference: np.ndarray) -> np.ndarray:
        """The largest residual norm of a solution, for each system."""
        return np.asarray(threshold(self.rtol, self.atol, reference))

    def on(self, like: Tensor) -> tuple[Tensor, Any]:
        """Relative and absolute tolerances as tensors of the dtype and on the device of `like`."""
        atol = self.atol
        absolute = torch.from_numpy(atol).to(like) if isinstance(atol, np.ndarray) else atol
        return torch.from_numpy(self.rtol).to(like), absolute

    def absolute_of(self, system: int) -> float:
        """The absolute tolerance of one system."""
        return float(self.atol[system] if isinstance(self.atol, np.ndarray) else self.atol)


@dataclass(frozen=True)
class Budget:
    """Limits on the work of one solve, and what has been spent of them.

    Attributes:
        steps: Limit on steps; infinite for none.
        evaluations: Limit on the evaluations in `counts`; infinite for none.
        counts: The work done so far, by this solve and by those that it is part of.
    """

    steps: float
    evaluations: float
    counts: Counts

    @staticmethod
    def of(stopping: Stopping, counts: Counts, default_steps: float = math.inf) -> Budget:
        """The limits of `stopping`, where it has none `default_steps`."""
        steps, evaluations = stopping.max_steps, stopping.max_evaluations
        return Budget(
            default_steps if steps is None else steps,
            math.inf if evaluations is None else evaluations,
            counts,
        )

    @property
    def evaluations_left(self) -> float:
        """Evaluations that may still be made; infinite without a limit."""
        return max(self.evaluations - self.counts.evaluations, 0)

    def spent(self, step: Any) -> Any:
        """True if no further step may be taken after `step` of them; a mask for an array of steps."""
        return (step >= self.steps) | (self.counts.evaluations >= self.evaluations)

    def divided(self, last: bool) -> tuple[Budget, Budget]:
        """A part of what is left, half of it or if `last` all, and the rest.

        The rest does not depend on what is then used: the share of a system must not depend on how
        others fare.
        """
        part = 1.0 if last else 0.5
        steps, left = part * self.steps, part * self.evaluations_left
        share = replace(
            self,
            steps=steps if math.isinf(steps) else math.ceil(steps),
            evaluations=self.counts.evaluations + (left if math.isinf(left) else math.ceil(left)),
        )
        rest = self.steps if math.isinf(self.steps) else self.steps - share.steps
        return share, replace(self, steps=rest)

    def limit(self, stopping: Stopping) -> Stopping:
        """`stopping` with these limits."""
        return replace(
            stopping,
            max_steps=None if math.isinf(self.steps) else int(self.steps),
            max_evaluations=None if math.isinf(self.evaluations) else int(self.evaluations),
        )
