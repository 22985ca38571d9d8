"""Per-system bookkeeping of one solve: norms are read back, judged, and entered in the ledger."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from ..interface.norms import rms_unit
from ..interface.problem import Problem
from ..interface.solver import Solver
from ..interface.stopping import Stopping
from ..interface.tolerance import Budget, Tolerance
from .active import Active
from .confirmation import Confirmation
from .ledger import Ledger
from .progress import (
    CONVERGED,
    MAX_STEPS,
    RECURSION_MARGIN,
    RUNNING,
    SLOWEST_PROGRESS,
    Progress,
    Rules,
    in_order,
    verdict,
)
from .reading import Reading, read
from .rounding import RoundingCheck, due

# A Krylov method may stagnate for as many steps as there are unknowns, and then converge; up to so many.
_LONGEST_HORIZON = 512
# Safety factor on tolerances in the fast path: a norm read in a coarse dtype may round across the tolerance.
_SAFETY = 1.01


@dataclass(frozen=True)
class _Postponed:
    """A look at which every system made progress, whose bookkeeping is left for later."""

    step: int
    z: Tensor | None
    """The iterate, or `None` where the solver forms it on demand."""
    reading: Reading


class Monitor:
    """Looks at the states of one solver and decides, by `verdict`, which systems have ended.

    Attributes:
        ledger: The record that is kept.
        active: The systems that are still evaluated.
        rounding: Accepts residuals that rounding explains.
    """

    def __init__(
        self,
        problem: Problem,
        solver: Solver,
        stopping: Stopping,
        tolerance: Tolerance,
        budget: Budget,
        ledger: Ledger,
        residual: Tensor,
        reference: Tensor | None,
        sequence: int | None,
    ) -> None:
        batch, n = ledger.z.shape
        self.ledger, self.active = ledger, Active(problem, ledger, solver.keeps_batch)
        self.rounding = RoundingCheck(ledger, self.active, tolerance, budget)
        self._confirmation = Confirmation(ledger, self.active, self.rounding, residual)
        self._solver, self._tolerance, self._sequence = solver, tolerance, sequence
        self._unit = rms_unit(n)
        self._first = None if reference is None else reference.detach().cpu().numpy() / self._unit
        self._progress = Progress.start(batch)
        self._rules = _rules(solver, stopping, n)
        # The fast path compares norms as they are read with these bounds.
        self._least = _SAFETY * np.maximum(tolerance.rtol, self.rounding.level)
        self._floor = tolerance.atol / self._unit
        self._most: Any = np.inf
        self._postponed: _Postponed | None = None
        self._all_run = batch > 0

    def look(self, state: Any, step: int, last: bool) -> bool:
        """Read the norms back, end systems, keep iterates; true if a system ended."""
        reading = read(state, self.active, self._tolerance.relative_to_iterate, self._first)
        if self._first is None:
            self._first = reading.norm
        if reading.end_status is None and not last and self._all_advance(reading):
            z = None if self._solver.lazy_iterate else state.z
            self._postponed = _Postponed(step, z, reading)
            return False
        self.settle()
        norm, reference = self._scaled(reading)
        ledger, before = self.ledger, self._progress
        running = ledger.running
        threshold = self._tolerance.threshold(reference)
        at_rounding = norm <= self.rounding.level * reference
        waiting = False if self._sequence is None else ~in_order(~running, self._sequence)
        self._progress = progress = before.after(norm, step, at_rounding, waiting)
        with np.errstate(over="ignore", invalid="ignore"):
            codes = verdict(
                self._rules, norm, threshold, self._first_norms, progress, step,
                at_rounding=at_rounding, end_status=reading.end_status, last=last,
            )  # fmt: skip
        converged = self._in_order(codes == CONVERGED, running)
        codes = np.where((codes == CONVERGED) & ~converged, MAX_STEPS if last else RUNNING, codes)
        ended = running & (codes != RUNNING)
        if self._solver.lazy_iterate:
            keep = ended & np.isfinite(norm)
        else:
            keep = running & ((norm < before.best) | converged)
        if keep.any():
            ledger.keep(keep, state.z, norm, step, threshold, self.active.rows)
        ledger.norms = np.where(running, norm, np.nan)
        self._most = SLOWEST_PROGRESS * np.minimum(progress.mark, progress.best) / self._unit
        doubted = running & ~ended & due(step - progress.since)
        if doubted.any() and not (self._solver.lazy_iterate or self._solver.confirm_residual):
            explained = self._in_order(self.rounding.explained(doubted), running)
            codes, ended = np.where(explained, CONVERGED, codes), ended | explained
        return self._end(ended, codes[ended], step)

    def hold(self, held: np.ndarray) -> None:
        """Let the systems `held` end before the first step."""
        self._end(held, MAX_STEPS, 0)

    def end_running(self, state: Any, step: int) -> None:
        """End what runs with `MAX_STEPS`, at the iterates of the look just made."""
        ledger = self.ledger
        running = ledger.running
        keep = running & np.isfinite(ledger.norms)
        if self._solver.lazy_iterate and keep.any():
            ledger.keep(keep, state.z, ledger.norms, step, rows=self.active.rows)
        self._end(running, MAX_STEPS, step)

    def confirm(self, last: bool) -> Tensor:
        """The true residual at the kept iterates; systems that it says are not solved run again."""
        residual, short = self._confirmation.run(self._first_norms, last)
        if short:
            self._rules = replace(self._rules, margin=0.5 * self._rules.margin)
        self._progress = self._progress.restarted()
        return residual

    def settle(self) -> None:
        """Write back the postponed bookkeeping of the last fast-path step."""
        if self._postponed is None:
            return
        step, z = self._postponed.step, self._postponed.z
        norm, reference = self._scaled(self._postponed.reading)
        self._postponed = None
        self._progress = Progress(norm, norm, np.full(len(norm), step), self._progress.reached)
        self.ledger.norms = norm
        if z is not None:
            everyone = np.ones(len(norm), dtype=bool)
            self.ledger.keep(everyone, z, norm, step, self._tolerance.threshold(reference))

    def _all_advance(self, reading: Reading) -> bool:
        """Fast path: every system still runs, made progress, and is above its tolerance.

        Most looks find that, and need a tenth of the arithmetic to tell it.
        """
        if not self._all_run:
            return False
        norm = reading.norm
        ahead = (norm > self._least * reading.reference + self._floor) & (norm < self._most)
        if np.count_nonzero(ahead) < len(ahead):
            return False
        self._most = SLOWEST_PROGRESS * norm
        return True

    def _scaled(self, reading: Reading) -> tuple[np.ndarray, np.ndarray]:
        """Root-mean-square norms in float64."""
        norm, reference = reading.norm, reading.reference
        return norm.astype(np.float64) * self._unit, reference.astype(np.float64) * self._unit

    @property
    def _first_norms(self) -> np.ndarray:
        assert self._first is not None  # for the type checker: a look has been made
        return self._first.astype(np.float64) * self._unit

    def _in_order(self, arrived: np.ndarray, running: np.ndarray) -> np.ndarray:
        """The `arrived` systems whose predecessors have all ended or arrived."""
        if self._sequence is None:
            return arrived
        return arrived & in_order(arrived | ~running, self._sequence)

    def _end(self, which: np.ndarray, status: Any, step: int) -> bool:
        """Enter the end of the systems `which`; true if there are any."""
        if not which.any():
            return False
        self._all_run = False
        self.ledger.end(which, status, step)
        return True


def _rules(solver: Solver, stopping: Stopping, n: int) -> Rules:
    horizon = min(n, _LONGEST_HORIZON) if solver.confirm_residual else 1
    return Rules(
        patience=max(stopping.patience, horizon),
        patience_at_rounding=min(max(stopping.patience // 10, horizon), stopping.patience),
        divergence=stopping.divergence,
        ends_itself=solver.ends_itself,
        margin=RECURSION_MARGIN if solver.confirm_residual else 1.0,
    )
