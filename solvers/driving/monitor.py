"""What a driver knows of the systems of a solve: norms, thresholds, status, best iterates, rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..interface.compiled_systems import NoDerivativeError
from ..interface.problem import Problem
from ..interface.solution import Counts, Status
from ..interface.solver import Solver
from ..interface.state import map_tensors
from ..interface.stopping import Stopping

# An enumeration's own members are slow in array arithmetic.
_RUNNING, _CONVERGED, _MAX_STEPS, _STALLED, _DIVERGED, _NON_FINITE = (
    int(status)
    for status in (
        Status.RUNNING,
        Status.CONVERGED,
        Status.MAX_STEPS,
        Status.STALLED,
        Status.DIVERGED,
        Status.NON_FINITE,
    )
)
# At the rounding level of the dtype, progress is noise and patience is short. Of half precision 64 units
# would be half of everything.
_ROUNDING_UNITS = 64
_HALF_ROUNDING_UNITS = 4
_SLOWEST_PROGRESS = 0.999
# Steps without progress after which rounding is asked for first; then at twice as many each time.
_FIRST_DOUBT = 8
_LONGEST_HORIZON = 512
# Rounding in the coarsest dtype that norms are read in must not hide a system that has converged.
_MORE = 1.01
# A residual from a recursion must undercut the tolerance a little: the true one decides.
_RECURSION_MARGIN = 0.9
# Starting anew from the true residual must lower it by so much, or rounding stands in the way.
_REFINED = 0.9
_BACKWARD_ERROR_UNITS = 8
_GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True)
class FlatSolution:
    """The outcome of `solve` on flat tensors; arrays have one entry per system.

    Examples:
        >>> from implicitly.solvers import NeumannSeries, Problem, solve
        >>> problem = Problem(lambda z: 0.5 * z + 1, operator=lambda v: 0.5 * v)
        >>> result = solve(problem, NeumannSeries(), torch.zeros(3, 1))
        >>> result.z.flatten().round(decimals=4).tolist(), result.status.tolist()
        ([2.0, 2.0, 2.0], [1, 1, 1])
    """

    z: Tensor
    status: np.ndarray
    residual: np.ndarray
    steps: np.ndarray
    value_steps: np.ndarray
    """The step that reached the iterate which is returned; on failure not the last."""
    threshold: np.ndarray
    counts: Counts
    trace: np.ndarray | None
    reasons: Mapping[int, str] = field(default_factory=dict)
    """What the library behind a solver says of systems that it did not solve."""


class _Advance(NamedTuple):
    """A look at which every system had come closer; Euclidean norms as they are read."""

    step: int
    z: Tensor | None
    """The iterate, or `None` where it is formed when it is asked for."""
    norm: np.ndarray
    reference: np.ndarray


class Monitor:
    """Norms, thresholds, status and best iterates of all systems during one solve."""

    def __init__(
        self,
        problem: Problem,
        solver: Solver,
        stopping: Stopping,
        z: Tensor,
        residual: Tensor,
        rtol: Tensor | None,
        reference: Tensor | None,
        trace: bool,
        sequence: int | None,
    ) -> None:
        batch, n = z.shape
        self._sequence = sequence
        self.problem = self._whole = problem
        self._confirms = solver.confirm_residual
        self._lazy = solver.lazy_iterate
        self._ends_itself = solver.ends_itself
        self._restrict = None if solver.keeps_batch else problem.restrict
        self._stopping = stopping
        self._unit = 1.0 / max(n, 1) ** 0.5
        precision = problem.precision or z.dtype
        self._eps = torch.finfo(precision).eps
        half = precision in (torch.float16, torch.bfloat16)
        self._rounding = (_HALF_ROUNDING_UNITS if half else _ROUNDING_UNITS) * self._eps
        if rtol is None:
            tolerance = stopping.relative(precision)
            self._rtol = np.full(batch, tolerance)
            least: float | np.ndarray = max(tolerance, self._rounding)
        else:
            self._rtol = rtol.detach().cpu().numpy().astype(np.float64)
            least = np.maximum(self._rtol, self._rounding)
        self._relative_to_z = problem.relative_to_iterate
        self._atol = stopping.absolute(z.dtype, self._relative_to_z)

        self.z = z
        self._rows: np.ndarray | None = None
        self._first: np.ndarray | None = None
        if reference is not None:
            self._first = reference.detach().cpu().numpy() / self._unit
        # Bounds on the norms, as they are read, of systems that come closer and are not there yet.
        self._least = least * _MORE
        self._floor = self._atol / self._unit
        self._most: Any = np.inf
        self._advanced: _Advance | None = None
        self._ended = batch == 0
        self._best = np.full(batch, np.inf)
        self._mark = np.full(batch, np.inf)
        """The best norm when progress was last seen: small gains add up."""
        self._last_progress = np.zeros(batch, dtype=np.int64)
        self._sure: tuple[Tensor, ...] = (z, residual) if self._confirms else ()
        """The iterates of the smallest residuals that were evaluated, and these; the start at first."""
        self._margin = _RECURSION_MARGIN
        # A Krylov method may stand still for as many steps as there are unknowns, and then arrive.
        horizon = min(n, _LONGEST_HORIZON) if self._confirms else 1
        self._patience = max(stopping.patience, horizon)
        self._patience_at_rounding = min(max(stopping.patience // 10, horizon), stopping.patience)
        self._was_at_rounding = np.zeros(batch, dtype=bool)
        self._default_tolerance = rtol is None and stopping.rtol is None
        self._knows_rounding = self._default_tolerance and (
            problem.linear or (problem.form == "root" and problem.linearize is not None)
        )
        self._status = np.full(batch, Status.RUNNING, dtype=np.int8)
        self._steps = np.zeros(batch, dtype=np.int64)
        self._value_steps = np.zeros(batch, dtype=np.int64)
        self._threshold = np.full(batch, self._atol)
        self._kept = np.full(batch, np.inf)
        self._norms = np.full(batch, np.nan)
        self._trace: list[np.ndarray] | None = [] if trace else None

    def hold(self, held: np.ndarray) -> None:
        """Let the systems `held` end before the first step."""
        self._ended = True
        self._status[held] = _MAX_STEPS

    def as_read(self, norms: np.ndarray) -> Tensor:
        """Root-mean-square norms per system as the Euclidean ones that a state may carry."""
        return torch.from_numpy(norms / self._unit).to(self.z)

    @property
    def all_ended(self) -> bool:
        return self._ended and bool((self._status != _RUNNING).all())

    @property
    def running(self) -> np.ndarray:
        """Boolean, for each system whether it has not ended."""
        return self._status == _RUNNING

    def places(self, systems: np.ndarray) -> tuple[Tensor, Tensor]:
        """The numbers of `systems`, given by a boolean for each, and their rows in the state."""
        rows = np.arange(len(self._status)) if self._rows is None else self._rows
        local = np.flatnonzero(systems[rows])
        device = self.z.device
        return torch.from_numpy(rows[local]).to(device), torch.from_numpy(local).to(device)

    @property
    def norms(self) -> np.ndarray:
        """Residual norms at the last look, NaN for systems that have ended."""
        self._settle()
        return self._norms

    def look(self, state: Any, step: int, last: bool) -> bool:
        """Read the norms back, end systems, keep iterates; whether any system ended."""
        norm, reference, failed = self._read(state)
        if self._first is None:
            self._first = norm
        if reference is None:
            reference = self._first if self._rows is None else self._first[self._rows]
        if self._all_arrive(state, step, norm, reference):
            return True
        if failed is None and not last and self._all_advance(norm, reference):
            self._advanced = _Advance(step, None if self._lazy else state.z, norm, reference)
            if self._trace is not None:
                self._trace.append(self.norms)
            return False
        self._settle()
        rows = slice(None) if self._rows is None else self._rows
        norm, reference = self._scaled(norm), self._scaled(reference)
        first = self._scaled(self._first[rows])
        threshold = self._atol + self._rtol[rows] * reference
        running = self._status[rows] == _RUNNING
        finite = np.isfinite(norm)
        best = self._best[rows]
        mark = self._mark[rows]
        progress = norm < _SLOWEST_PROGRESS * mark
        self._mark[rows] = np.where(progress, norm, mark)
        last_progress = np.where(progress | self._waiting(), step, self._last_progress[rows])
        at_rounding = finite & (norm <= self._rounding * reference)
        self._was_at_rounding[rows] |= at_rounding
        patience = np.where(at_rounding, self._patience_at_rounding, self._patience)

        status = np.full(len(norm), _RUNNING, dtype=np.int8)
        if last:
            status[:] = _MAX_STEPS
        if not self._ends_itself:
            status[step - last_progress >= patience] = _STALLED
        if failed is not None:
            status = np.where(failed > 0, failed.astype(np.int8), status)
        with np.errstate(invalid="ignore", over="ignore"):
            diverged = norm > self._stopping.divergence * first
        status[diverged] = _DIVERGED
        # What ran away after it had come as close as the dtype allows has not failed to converge.
        status[diverged & self._was_at_rounding[rows]] = _STALLED
        status[~finite] = _NON_FINITE
        margin = self._margin if self._confirms else 1.0
        arrived = finite & (norm <= margin * threshold)
        in_order = self._in_order(arrived)
        # What waits for the systems before it makes no progress and is none the worse for that.
        status[arrived] = _MAX_STEPS if last else _RUNNING
        status[in_order] = _CONVERGED

        ended = running & (status != _RUNNING)
        converged = ended & (status == _CONVERGED)
        keep = ended & finite if self._lazy else running & (norm < best) | converged
        if keep.any():
            self._keep(state.z, keep)
        self._kept[rows] = np.where(keep, norm, self._kept[rows])
        self._value_steps[rows] = np.where(keep, step, self._value_steps[rows])
        self._best[rows] = np.where(running, np.fmin(norm, best), best)
        self._last_progress[rows] = last_progress
        self._threshold[rows] = np.where(keep, threshold, self._threshold[rows])
        if self._may_doubt and not (self._lazy or self._confirms):
            stood = step - last_progress
            due = running & ~ended & (stood >= _FIRST_DOUBT) & (stood & (stood - 1) == 0)
            if due.any():
                met = self._in_order(self._within_rounding(rows, due))
                status[met] = _CONVERGED
                ended |= met
        self._most = _SLOWEST_PROGRESS * np.minimum(self._mark, self._best) / self._unit
        self._norms = self._norms.copy()
        self._norms[rows] = np.where(running, norm, np.nan)
        if self._trace is not None:
            self._trace.append(self._norms)
        if ended.any():
            self._ended = True
            self._status[rows] = np.where(ended, status, self._status[rows])
            self._steps[rows] = np.where(ended, step, self._steps[rows])
            return True
        return False

    def _in_order(self, arrived: np.ndarray) -> np.ndarray:
        """Those of the systems that have `arrived` before which nothing in their sequence still moves."""
        if self._sequence is None:
            return arrived
        return arrived & self._all_before(arrived | ~self.running)

    def _waiting(self) -> np.ndarray | bool:
        """Those of the systems before which something in their sequence still moves."""
        return False if self._sequence is None else ~self._all_before(~self.running)

    def _all_before(self, still: np.ndarray) -> np.ndarray:
        """For each system whether all before it in its sequence are `still`."""
        assert self._sequence is not None  # for the type checker: only asked where there are any
        sequences = still.reshape(-1, self._sequence)
        before = np.ones_like(sequences)
        before[:, 1:] = np.logical_and.accumulate(sequences, axis=1)[:, :-1]
        return before.ravel()

    def _all_advance(self, norm: np.ndarray, reference: np.ndarray) -> bool:
        """Whether all systems still run, and each has made progress and is above its tolerance.

        This is what most looks find, and much less than `look` needs to know to tell it: the
        bookkeeping is left to `_settle`.
        """
        if self._rows is not None or self._ended:
            return False
        ahead = (norm > self._least * reference + self._floor) & (norm < self._most)
        if np.count_nonzero(ahead) < len(ahead):
            return False
        self._most = _SLOWEST_PROGRESS * norm
        return True

    def _all_arrive(self, state: Any, step: int, norm: np.ndarray, reference: np.ndarray) -> bool:
        """Whether all systems still run, and each has converged: what there is to note is short."""
        if self._rows is not None or self._ended or self._lazy or self._confirms:
            return False
        if norm[0] > self._floor + _MORE * self._rtol[0] * reference[0]:
            return False  # Most looks need no more than one system to tell.
        norm = self._scaled(norm)
        threshold = self._atol + self._rtol * self._scaled(reference)
        if not (norm <= threshold).all() or np.isinf(norm).any():
            return False
        self._advanced = None
        self.z, self._kept, self._threshold, self._norms = state.z, norm, threshold, norm
        self._best = norm
        self._status[:] = _CONVERGED
        self._steps[:] = step
        self._value_steps[:] = step
        self._ended = True
        if self._trace is not None:
            self._trace.append(norm)
        return True

    def _settle(self) -> None:
        """The bookkeeping of the last look at which every system had come closer."""
        if self._advanced is None:
            return
        step, z, norm, reference = self._advanced
        self._advanced = None
        norm = self._scaled(norm)
        self._norms = norm
        self._best, self._mark = norm.copy(), norm.copy()
        self._last_progress[:] = step
        if z is not None:
            self.z, self._kept = z, norm.copy()
            self._threshold = self._atol + self._rtol * self._scaled(reference)
            self._value_steps[:] = step

    def _scaled(self, norm: np.ndarray) -> np.ndarray:
        """Root-mean-square norms from Euclidean ones as they are read."""
        return norm.astype(np.float64) * self._unit

    def _read(self, state: Any) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Norms of residual and iterate and the solver's own failures, in one read-back."""
        norm = getattr(state, "norm", None)
        if norm is None:
            norm = torch.linalg.vector_norm(state.residual, dim=1)
        parts = [norm]
        if self._relative_to_z:
            z_norm = getattr(state, "z_norm", None)
            parts.append(torch.linalg.vector_norm(state.z, dim=1) if z_norm is None else z_norm)
        failed = getattr(state, "failed", None)
        if failed is not None:
            parts.append(failed.to(norm.dtype))
        stacked = torch.stack(parts)
        host = (stacked.detach() if stacked.requires_grad else stacked).cpu().numpy()
        reference = host[1] if self._relative_to_z else None
        return host[0], reference, None if failed is None else host[-1]

    def _keep(self, z: Tensor, which: np.ndarray) -> None:
        """Make the iterates of the systems `which` the ones to return; no copy if that is all."""
        if self._rows is None and which.all():
            self.z = z
            return
        local = np.flatnonzero(which)
        there = local if self._rows is None else self._rows[local]
        source = torch.from_numpy(local).to(z.device)
        target = torch.from_numpy(there).to(z.device)
        self.z = self.z.index_copy(0, target, z.index_select(0, source))

    def _index(self) -> Tensor:
        return torch.from_numpy(self._rows).to(self.z.device)

    def thin_out(self, state: Any) -> Any:
        """Drop the systems that have ended from the evaluation, or at least keep NaN out of it."""
        rows = np.arange(len(self._status)) if self._rows is None else self._rows
        running = self._status[rows] == Status.RUNNING
        if self._restrict is not None and 2 * running.sum() <= len(rows):
            local = torch.from_numpy(np.flatnonzero(running)).to(self.z.device)
            self._rows = rows[running]
            self.problem = self._restrict(self._index())
            return map_tensors(lambda tensor: tensor.index_select(0, local), state)
        finished = torch.from_numpy(~running).to(self.z.device).unsqueeze(1)
        z = self.z if self._rows is None else self.z[self._index()]
        self.problem.park(finished, z)
        return state

    def confirm(self, last: bool) -> Tensor:
        """Replace norms by those of the true residual; systems that fall short run again."""
        self.problem, self._rows = self._whole, None
        self.problem.unpark()
        residual = self.problem.residual(self.z)
        both = (torch.linalg.vector_norm(one, dim=1) for one in (residual, self._sure[1]))
        norm, before = (
            torch.stack(tuple(both)).detach().cpu().numpy().astype(np.float64) * self._unit
        )
        worse = ~(norm <= before)
        if worse.any():  # Rounding has led a recursion astray.
            these = torch.from_numpy(worse).to(self.z.device).unsqueeze(1)
            self.z = torch.where(these, self._sure[0], self.z)
            residual = torch.where(these, self._sure[1], residual)
            norm = np.where(worse, before, norm)
        self._sure = (self.z, residual)
        short = (self._status == Status.CONVERGED) & ~(norm <= self._threshold)
        if short.any():
            self._margin *= 0.5
            if self._default_tolerance:
                self._threshold = np.maximum(self._threshold, self._reachable(self._whole, self.z))
                short &= ~(norm <= self._threshold)
        assert self._first is not None  # for the type checker: a look has been made
        first = self._scaled(self._first)
        # What was at the rounding level already has had its second chance.
        stuck = short & (~(norm <= _REFINED * before) | (before <= self._rounding * first))
        self._status[short] = Status.MAX_STEPS if last else Status.RUNNING
        self._status[stuck] = Status.STALLED
        self._kept = norm
        self._best = np.full_like(norm, np.inf)
        self._mark = np.full_like(norm, np.inf)
        return residual

    def accept_rounding(self) -> None:
        """What ends where rounding explains its residual meets the default tolerance.

        That of a root or of a linear equation is relative to the residual at the start, which may
        have been a solution.
        """
        if not self._may_doubt or (self._status == _CONVERGED).all():
            return
        unsolved = (self._status == _STALLED) | (self._status == _MAX_STEPS)
        unsolved &= (self._steps > 0) & np.isfinite(self._kept)
        if unsolved.any():
            self._whole.unpark()
            self.problem, self._rows = self._whole, None
            self._status[self._within_rounding(slice(None), unsolved)] = _CONVERGED

    @property
    def _may_doubt(self) -> bool:
        """Whether it can be asked what rounding explains, and an evaluation is left for that."""
        limit = self._stopping.max_evaluations
        within = limit is None or self._whole.counts.evaluations < limit
        return self._knows_rounding and within

    def _within_rounding(self, rows: Any, which: np.ndarray) -> np.ndarray:
        """Those of the systems `which`, among `rows`, with a residual that rounding explains."""
        z = self.z if self._rows is None else self.z[self._index()]
        try:
            reachable = self._reachable(self.problem, z)
        except NoDerivativeError:  # A solver may do without, and then nothing is known of rounding.
            self._knows_rounding = False
            return np.zeros_like(which)
        met: np.ndarray = which & (self._kept[rows] <= reachable)
        self._threshold[rows] = np.where(met, reachable, self._threshold[rows])
        return met

    def _reachable(self, problem: Problem, z: Tensor) -> np.ndarray:
        """The residual that rounding alone explains: that of changing `z` in its last digits.

        A default tolerance asks for no more than a small backward error (Rigal & Gaches 1967). The
        changes of a few units have the signs of a quasi-random sequence, so that the product is of
        the size of `‖A‖‖z‖` where cancellation makes `A z` small.
        """
        n = z.shape[1]
        count = torch.arange(n, dtype=torch.float64, device=z.device)
        signs = torch.where((count * _GOLDEN_RATIO) % 1.0 < 0.5, 1.0, -1.0).to(z.dtype)
        moved = z * signs
        product = problem.apply(moved) if problem.linear else problem.linearization(z).jvp(moved)
        change = torch.linalg.vector_norm(product, dim=1)
        change = change.detach().cpu().numpy().astype(np.float64)
        return change * self._unit * _BACKWARD_ERROR_UNITS * self._eps

    def end_running(self, state: Any, step: int) -> None:
        """End what runs with `MAX_STEPS`, at the iterates of the look just made."""
        running = self._status == Status.RUNNING
        self._ended = True
        self._status[running] = _MAX_STEPS
        self._steps[running] = step
        self._settle()
        keep = running & np.isfinite(self._norms)
        if self._lazy and keep.any():
            self._keep(state.z, keep if self._rows is None else keep[self._rows])
            self._kept[keep] = self._norms[keep]
            self._value_steps[keep] = step

    def count_steps(self, steps: np.ndarray) -> None:
        """Make `steps` those of the systems, and of their values where they are not the start."""
        self._steps = steps.astype(np.int64)
        self._value_steps = np.where(self._value_steps > 0, self._steps, 0)

    def take_trace(self, trace: np.ndarray | None) -> None:
        """Make `trace` that of the solve."""
        if self._trace is not None and trace is not None:
            self._trace = list(trace)

    def solution(self) -> FlatSolution:
        return FlatSolution(
            z=self.z,
            status=self._status,
            residual=self._kept,
            steps=self._steps,
            value_steps=self._value_steps,
            threshold=self._threshold,
            counts=self._whole.counts,
            trace=None if self._trace is None else np.stack(self._trace),
        )
