"""The largest residual norm of a solution, and the work that may be spent on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from time import perf_counter
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


def ends_at_zero(dtype: torch.dtype) -> float:
    """The part of the size of the start, of its residual, at which an iteration towards zero ends."""
    return float(torch.finfo(dtype).eps) ** 2


@dataclass(frozen=True)
class Tolerance:
    """The tolerances of one solve; norms are root-mean-square, arrays have one entry per system.

    Attributes:
        rtol: Relative tolerances, `(batch,)`.
        atol: Absolute tolerances, `(batch,)`.
        is_default: The relative tolerance is that of the dtype: nobody asked for it.
        relative_to_iterate: The reference is the size of the iterate.
        zero: The part of the size of the start which is as good as zero.
    """

    rtol: np.ndarray
    atol: np.ndarray
    is_default: bool
    relative_to_iterate: bool
    zero: float = 0.0

    @staticmethod
    def of(
        problem: Problem, stopping: Stopping, z: Tensor, typical: Tensor | None = None
    ) -> Tolerance:
        """The tolerances of a solve from `z`.

        Args:
            problem: The systems.
            stopping: The rule that they come from.
            z: The start, `(batch, n)`.
            typical: The norm of the largest residuals that are allowed, `(batch,)`, if there are limits on
                single equations.
        """
        # Where the reference is the first residual, no absolute tolerance is needed.
        to_zero = problem.relative_to_iterate and stopping.atol is None and typical is None
        atol = np.full(z.shape[0], stopping.atol or 0.0)
        relative = stopping.relative(problem.dtype(z))
        if stopping.atol is None and typical is not None and relative == 0:
            atol = typical.cpu().numpy().astype(np.float64)
        return Tolerance(
            rtol=np.full(z.shape[0], relative),
            atol=atol,
            is_default=stopping.is_default,
            relative_to_iterate=problem.relative_to_iterate,
            zero=ends_at_zero(z.dtype) if to_zero else 0.0,
        )

    @staticmethod
    def of_norms(rtol: Tensor) -> Tolerance:
        """Relative tolerances on the residual norms of linear equations, `(batch,)`."""
        relative = rtol.detach().cpu().numpy().astype(np.float64)
        return Tolerance(relative, np.zeros_like(relative), False, False)

    def begun(self, size: np.ndarray) -> Tolerance:
        """The tolerances of a solve whose start, or the residual there, has these sizes."""
        if self.zero == 0:
            return self
        return replace(self, atol=self.zero * np.where(np.isfinite(size), size, 0.0))

    def threshold(self, reference: np.ndarray) -> np.ndarray:
        """The largest residual norm of a solution, for each system."""
        return np.asarray(threshold(self.rtol, self.atol, reference))

    def on(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Relative and absolute tolerances as tensors of the dtype and on the device of `like`."""
        return torch.from_numpy(self.rtol).to(like), torch.from_numpy(self.atol).to(like)


@dataclass(frozen=True)
class Budget:
    """Limits on the work of one solve, and what has been spent of them.

    Attributes:
        steps: Limit on steps; infinite for none.
        evaluations: Limit on the evaluations in `counts`; infinite for none.
        products: Limit on the products in `counts`; infinite for none.
        deadline: The time of the clock `perf_counter` at which the solve ends; infinite for none.
        counts: The work done so far, by this solve and by those that it is part of.
    """

    steps: float
    evaluations: float
    counts: Counts
    products: float = math.inf
    deadline: float = math.inf

    @staticmethod
    def of(stopping: Stopping, counts: Counts, default_steps: float = math.inf) -> Budget:
        """The limits of `stopping`, where it has none `default_steps`."""
        steps, seconds = stopping.max_steps, stopping.max_seconds
        return Budget(
            default_steps if steps is None else steps,
            _or_infinite(stopping.max_evaluations),
            counts,
            _or_infinite(stopping.max_products),
            math.inf if seconds is None else perf_counter() + seconds,
        )

    def within(self, stopping: Stopping, counts: Counts, default_steps: float = math.inf) -> Budget:
        """The limits of `stopping` anew, for a solve within this one, which ends at the same time."""
        return replace(Budget.of(stopping, counts, default_steps), deadline=self.deadline)

    @property
    def evaluations_left(self) -> float:
        """Evaluations that may still be made; infinite without a limit."""
        return max(self.evaluations - self.counts.evaluations, 0)

    @property
    def exhausted(self) -> bool:
        """True if no work may be done any more, however few steps were taken."""
        counts = self.counts
        return (
            counts.evaluations >= self.evaluations
            or counts.products >= self.products
            or (self.deadline < math.inf and perf_counter() >= self.deadline)
        )

    def spent(self, step: Any) -> Any:
        """True if no further step may be taken after `step` of them; a mask for an array of steps."""
        return (step >= self.steps) | self.exhausted

    def remaining(self) -> Budget:
        """The limits for a part of the solve with counts of its own, which start from zero."""
        products = max(self.products - self.counts.products, 0)
        return replace(self, evaluations=self.evaluations_left, products=products)

    def divided(self, last: bool) -> tuple[Budget, Budget]:
        """A part of what is left, half of it or if `last` all, and the rest.

        But for time, the rest does not depend on what is then used: the share of a system must not depend on
        how others fare.
        """
        part = 1.0 if last else 0.5
        steps, now = part * self.steps, perf_counter()
        share = replace(
            self,
            steps=steps if math.isinf(steps) else math.ceil(steps),
            evaluations=_share(self.evaluations, self.counts.evaluations, part),
            products=_share(self.products, self.counts.products, part),
            deadline=now + part * max(self.deadline - now, 0.0),
        )
        rest = self.steps if math.isinf(self.steps) else self.steps - share.steps
        return share, replace(self, steps=rest)

    def limit(self, stopping: Stopping) -> Stopping:
        """`stopping` with these limits."""
        left = self.deadline - perf_counter()
        return replace(
            stopping,
            max_steps=_or_none(self.steps),
            max_evaluations=_or_none(self.evaluations),
            max_products=_or_none(self.products),
            max_seconds=None if math.isinf(left) else max(left, 0.0),
        )


def _or_infinite(limit: int | None) -> float:
    return math.inf if limit is None else limit


def _or_none(limit: float) -> int | None:
    return None if math.isinf(limit) else int(limit)


def _share(limit: float, spent: int, part: float) -> float:
    """A limit that leaves a part of what is left of another."""
    left = part * max(limit - spent, 0)
    return spent + (left if math.isinf(left) else math.ceil(left))
