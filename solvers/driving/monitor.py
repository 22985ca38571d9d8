"""Per-system bookkeeping of one solve: norms are read back, judged, and entered in the ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..interface.norms import rms_unit
from ..interface.problem import Problem
from ..interface.solver import Solver, WholeSolver
from ..interface.stopping import Stopping
from ..interface.tolerance import Budget, Tolerance
from .acceptance import Acceptance
from .active import Active
from .confirmation import Confirmation
from .contraction import Contraction
from .demand import Demand
from .fast_path import FastPath
from .independence import Independence
from .ledger import Ledger
from .limits import ResidualLimits
from .progress import (
    CONVERGED,
    FAR,
    MAX_STEPS,
    RUNNING,
    SLOW,
    Progress,
    Rules,
    in_order,
    verdict,
)
from .reading import Reading, plain_reading, read
from .rounding import RoundingCheck, due


class Monitor:
    """Looks at the states of one solver and decides, by `verdict`, which systems have ended.

    Attributes:
        ledger: The record that is kept.
        active: The systems that are still evaluated.
        acceptance: Examines systems that claim to have converged.
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
        limits: ResidualLimits | None = None,
        inner: bool = False,
    ) -> None:
        batch, n = ledger.z.shape
        self.ledger, self.active = ledger, Active(problem, ledger, solver.keeps_batch)
        self.rounding = RoundingCheck(ledger, self.active, tolerance, budget, residual)
        demand = Demand.of(problem.dtype(ledger.z), stopping)
        self.acceptance = Acceptance(
            ledger, self.active, tolerance, demand, budget, ends_itself=solver.ends_itself,
            together=sequence or 1, limits=limits,
        )  # fmt: skip
        self.independence = Independence(
            ledger, self.active, budget, evaluates=not inner, coupled=sequence is not None
        )
        steps = problem.relative_to_iterate and not isinstance(solver, WholeSolver)
        self._contraction = Contraction() if steps else None
        self._confirmation = Confirmation(ledger, self.active, self.rounding, residual)
        self._solver, self._tolerance, self._sequence = solver, tolerance, sequence
        self._unit = rms_unit(n)
        self._first = None if reference is None else reference.detach().cpu().numpy() / self._unit
        self._progress = Progress.start(batch)
        self._begun_at: np.ndarray | None = None
        """The size of the start or of its residual, from the first look on."""
        self._rules = Rules.of(
            stopping, n, recursive=solver.confirm_residual, ends_itself=solver.ends_itself,
            most=solver.most_patience,
        )  # fmt: skip
        # While an objective falls, its gradient may grow; between bounds nothing runs off.
        if problem.objective is not None or problem.box is not None:
            self._rules = replace(self._rules, divergence=np.inf)
        self._fast = FastPath(tolerance, self.rounding.level, self._unit)
        self._budget, self._stopped = budget, False
        self._earlier = np.zeros(batch, dtype=np.int64)
        """Steps of each system before the solver was last started."""
        self._most_earlier = 0

    @property
    def all_run(self) -> bool:
        """True while no system has ended."""
        return self._fast.open

    def iterates(self, state: Any) -> Tensor:
        """The iterates of all systems: those of a state where systems run, else those that are kept."""
        kept, rows, z = self.ledger.z, self.active.rows, state.z.detach()
        if rows is not None:
            z = kept.index_copy(0, torch.from_numpy(rows).to(kept.device), z)
        running = torch.from_numpy(self.ledger.running).to(kept.device)
        return torch.where(running.unsqueeze(1), z, kept)

    def limited(self, step: int) -> bool:
        """True if some running system may take no step after this one."""
        return bool(self._budget.spent(step + self._most_earlier))

    def look(self, state: Any, step: int, *, last: bool = False) -> bool:
        """Read the norms back, end systems, keep iterates; true if a system ended.

        Args:
            state: The solver's state.
            step: Its steps since it was last started.
            last: It ends here, whatever the limits are.
        """
        limited = last or self.limited(step)
        reading = read(state, self.active, self._tolerance.relative_to_iterate, self._first)
        if self._begun_at is None:
            self._begun_at = self._begin(reading)
        contraction = self._contraction
        if contraction is not None:
            contraction.look(state.z, reading, self.active.rows)
        if not limited and self._fast.advances(reading):
            self._fast.postponed = step, None if self._solver.lazy_iterate else state.z, reading
            return False
        self.settle()
        norm, reference = self._scaled(reading)
        own = step + self._earlier
        spent = last | self._budget.spent(own) if limited else False
        ledger, before = self.ledger, self._progress
        running = ledger.running
        threshold = self._threshold(reference)
        at_rounding = norm <= self.rounding.level * reference
        waiting = False if self._sequence is None else ~in_order(~running, self._sequence)
        self._progress = progress = before.after(norm, step, at_rounding, waiting)
        with np.errstate(over="ignore", invalid="ignore"):
            bar = threshold
            if contraction is not None and (claims := running & (norm <= threshold)).any():
                error = self.active.spread(contraction.error())
                far = reference > FAR * self._begun_at
                late = self.acceptance.put_off(claims, norm, error, far, own >= SLOW)
                bar = np.where(late, -1.0, threshold)
            codes = verdict(
                self._rules, norm, bar, self._first_norms, progress, step,
                at_rounding=at_rounding, end_status=reading.end_status, last=spent,
            )  # fmt: skip
        converged = self._in_order(codes == CONVERGED, running)
        if self._sequence is not None:
            waits = np.where(spent, MAX_STEPS, RUNNING)
            codes = np.where((codes == CONVERGED) & ~converged, waits, codes)
        ended = running & (codes != RUNNING)
        if self._solver.lazy_iterate:
            keep = ended & np.isfinite(norm)
        else:
            keep = running & ((norm < before.best) | converged)
        if keep.any():
            ledger.keep(keep, state.z, norm, own, threshold, self.active.rows)
        if converged.any() and hasattr(state, "error"):
            self.acceptance.note(state.error(), converged & ended)
        ledger.norms = np.where(running, norm, np.nan)
        self._fast.expect(np.minimum(progress.mark, progress.best))
        doubted = running & ~ended & due(step - progress.since, self._solver.first_doubt)
        if doubted.any() and not (self._solver.lazy_iterate or self._solver.confirm_residual):
            explained = self._in_order(self.rounding.explained(doubted), running)
            codes, ended = np.where(explained, CONVERGED, codes), ended | explained
        return self._end(ended, codes[ended], own[ended])

    def read_plainly(self, z: Tensor, residual: Tensor) -> Reading:
        """The norms at a point while all systems run; none of zero or infinity is refined."""
        return plain_reading(z, residual, self._tolerance.relative_to_iterate, self._first)

    def passes(self, z: Tensor, reading: Reading, step: int) -> bool:
        """Take note of a look at which every system goes on; false if it needs more than that."""
        if self.limited(step) or not self._fast.advances(reading):
            return False
        if self._contraction is not None:
            self._contraction.look(z, reading, None)
        self._fast.postponed = step, z, reading
        return True

    def _begin(self, reading: Reading) -> np.ndarray:
        """Take tolerances from the first look; the size of the start or of its residual."""
        if self._first is None:
            self._first = reading.norm
        norm, reference = self._scaled(reading)
        size = np.maximum(norm, reference)
        self._tolerance = self._tolerance.begun(size)
        self._fast.floor = self._tolerance.atol / self._unit
        self.acceptance.atol = self._tolerance.atol
        return np.asarray(size)

    def hold(self, held: np.ndarray) -> None:
        """Let the systems `held` end before the first step."""
        self._end(held, MAX_STEPS, 0)

    def stop(self, state: Any, step: int) -> None:
        """End every running system with `MAX_STEPS`, at the iterates of the look just made."""
        ledger, own = self.ledger, step + self._earlier
        self._stopped = True
        running = ledger.running
        keep = running & np.isfinite(ledger.norms)
        if self._solver.lazy_iterate and keep.any():
            ledger.keep(keep, state.z, ledger.norms, own, rows=self.active.rows)
        self._end(running, MAX_STEPS, own[running])

    def confirm(self) -> Tensor | None:
        """Examine the converged systems, once all have ended; those that fall short run again.

        Returns:
            The residual at the kept iterates where a system may run again, else `None`.
        """
        residual: Tensor | None
        if self._solver.confirm_residual:
            more = ~np.asarray(self._stopped | self._budget.spent(self.ledger.steps))
            residual, short = self._confirmation.run(self._first_norms, more)
            if short:
                self._rules = replace(self._rules, margin=0.5 * self._rules.margin)
            over = self.acceptance.examine_equations(can_go_on=not self._stopped)
            residual = residual if over is None else over
        else:
            residual = self.examine(can_go_on=not self._stopped)
        running = self.ledger.running
        self._progress = self._progress.restarted()
        if self._contraction is not None:
            self._contraction.restart()
        self._earlier = np.where(running, self.ledger.steps, 0)
        self._most_earlier = int(self._earlier.max(initial=0))
        return residual

    def examine(self, *, can_go_on: bool) -> Tensor | None:
        """Examine the converged systems together, then each; the residual if one is to run again."""
        apart = self.independence.examine(self._first_norms, can_go_on=can_go_on)
        return self.acceptance.examine(can_go_on=can_go_on) if apart is None else apart

    def settle(self) -> None:
        """Write back the postponed bookkeeping of the last fast-path step."""
        if self._fast.postponed is None:
            return
        step, z, reading = self._fast.postponed
        self._fast.postponed = None
        norm, reference = self._scaled(reading)
        reached = self._progress.reached
        if self._fast.reached is not None:
            reached = reached | self._fast.reached
        self._progress = Progress(norm, norm, np.full(len(norm), step), reached)
        self.ledger.norms = norm
        if z is not None:
            everyone = np.ones(len(norm), dtype=bool)
            own = step + self._earlier
            self.ledger.keep(everyone, z, norm, own, self._threshold(reference))

    def _threshold(self, reference: np.ndarray) -> np.ndarray:
        """The largest norms of converged systems; lower where a claim was refused."""
        return np.asarray(self._tolerance.threshold(reference) * self.acceptance.factor)

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

    def _end(self, which: np.ndarray, status: Any, step: Any) -> bool:
        """Enter the end of the systems `which`; true if there are any."""
        if not which.any():
            return False
        self._fast.open = False
        self.ledger.end(which, status, step)
        return True
