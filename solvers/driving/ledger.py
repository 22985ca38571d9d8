"""The record of one solve: the only place where a status is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..interface.check import Check, Watcher
from ..interface.solution import Counts, FlatSolution, Status
from ..interface.solver import RunOutcome

_RUNNING = int(Status.RUNNING)


class Ledger:
    """Status, steps and kept iterate of every system, the trace, and the caller's callback.

    Arrays have one entry per system. Drivers, solvers made of solvers and adapters to libraries each keep
    one; a solve within a solve has its own, whose result the outer one takes over.

    Attributes:
        status: `Status` codes; `RUNNING` until a system ends.
        steps: The step at which it ended.
        z: The iterates to return, `(batch, n)`: the start at first.
        norm: Root-mean-square norms of their residuals; infinite before the first.
        best_step: The steps that reached them.
        threshold: The largest norms that would have counted as converged there.
        error: Estimates of the relative error of `z`; NaN where nothing is known of it.
        norms: Residual norms at the last look; NaN for systems that have ended.
        reasons: A library's account of systems that it did not solve.

    Examples:
        >>> ledger = Ledger(torch.zeros(3, 1))
        >>> ledger.end(np.array([True, False, False]), Status.CONVERGED, step=4)
        >>> ledger.running.tolist(), ledger.steps.tolist()
        ([False, True, True], [4, 0, 0])
    """

    def __init__(self, z: Tensor, *, callback: Watcher | None = None, trace: bool = False) -> None:
        batch = z.shape[0]
        self.z = z
        self.status = np.full(batch, _RUNNING, dtype=np.int8)
        self.steps = np.zeros(batch, dtype=np.int64)
        self.best_step = np.zeros(batch, dtype=np.int64)
        self.norm = np.full(batch, np.inf)
        self.threshold = np.zeros(batch)
        self.error = np.full(batch, np.nan)
        self.norms = np.full(batch, np.nan)
        self.reasons: dict[int, str] = {}
        self.trace: list[np.ndarray] = []
        self._traces = trace
        self._callback = callback

    @property
    def running(self) -> np.ndarray:
        """Boolean, the systems that have not ended."""
        return self.status == _RUNNING

    @property
    def all_ended(self) -> bool:
        return not self.running.any()

    @property
    def watched(self) -> bool:
        """True if the norms of each look are asked for."""
        return self._traces or self._callback is not None

    def end(self, which: Any, status: Any, step: Any) -> None:
        """Write the status of the systems `which` (a mask or an index), which ended at `step`."""
        self.status[which] = status
        self.steps = self.steps.copy()
        self.steps[which] = step

    def reopen(self, which: np.ndarray) -> None:
        """Let systems that had ended run again."""
        self.status[which] = _RUNNING

    def keep(
        self,
        which: np.ndarray,
        z: Tensor,
        norm: np.ndarray,
        step: Any,
        threshold: np.ndarray | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        """Make `z` the iterates to return of the systems `which` (a mask over all systems).

        Args:
            which: The systems.
            z: Iterates of all systems, or of the systems `rows`.
            norm: Residual norms, an entry for each system.
            step: The step that reached them.
            threshold: The largest norms that would have counted as converged there.
            rows: The numbers of the systems that `z` has, in order; `None` for all.
        """
        if rows is None and which.all():
            self.z = z  # No copy.
        elif which.any():
            local = np.flatnonzero(which if rows is None else which[rows])
            source = torch.from_numpy(local).to(z.device)
            target = source if rows is None else torch.from_numpy(rows[local]).to(z.device)
            self.z = self.z.index_copy(0, target, z.index_select(0, source))
        self.norm = np.where(which, norm, self.norm)
        self.best_step = np.where(which, step, self.best_step)
        if threshold is not None:
            self.threshold = np.where(which, threshold, self.threshold)

    def record(self) -> None:
        """Append the `norms` of a look to the trace, if one is asked for."""
        if self._traces:
            self.trace.append(self.norms)

    def announce(self, step: int, iterate: Callable[[], Tensor] | None = None) -> bool:
        """Show a look to the caller; true if the solve is to end.

        Args:
            step: The step.
            iterate: Gives the iterates of all systems; `None` for those that are kept.
        """
        if self._callback is None:
            return False
        z = self.z
        return self._callback(Check(step, self.norms, self.status.copy(), iterate or (lambda: z)))

    def take_over(self, outcome: RunOutcome, ran: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Steps, errors, trace and reasons of a run that had a ledger, or a library, of its own.

        Args:
            outcome: The result of the run.
            ran: The systems that took part in it.
            before: The steps of all systems before it.

        Returns:
            The systems with a small residual that the run itself has refused.
        """
        refused = np.zeros_like(ran)
        kept = ran & ((self.best_step > 0) | (outcome.z is self.z))
        self.steps = np.where(ran, before + outcome.steps, self.steps).astype(np.int64)
        self.best_step = np.where(kept, self.steps, self.best_step)
        self.reasons.update(outcome.reasons)
        if outcome.error is not None:
            self.error = np.where(kept, outcome.error, self.error)
            # A small residual with a known error is no root where the run itself refused it.
            refused = kept & ~np.isnan(outcome.error) & (outcome.status != Status.CONVERGED)
            self.status = np.where(refused, outcome.status, self.status).astype(np.int8)
        if self._traces and outcome.trace is not None:
            self.trace = [*(self.trace if before.any() else ()), *outcome.trace]
        return refused

    def outcome(self, *, norms_known: bool = False) -> RunOutcome:
        """The same for a solver that runs whole; its driver evaluates norms that are not known."""
        return RunOutcome(
            self.z,
            self.status,
            self.steps,
            self.reasons,
            residual_norm=self.norm if norms_known else None,
            error=self.error,
            trace=np.stack(self.trace) if self.trace else None,
        )

    def solution(self, counts: Counts) -> FlatSolution:
        """The result of the solve."""
        return FlatSolution(
            z=self.z,
            status=self.status,
            residual_norm=self.norm,
            steps=self.steps,
            best_step=self.best_step,
            threshold=self.threshold,
            error=self.error,
            counts=counts,
            trace=np.stack(self.trace) if self.trace else None,
            reasons=self.reasons,
        )
