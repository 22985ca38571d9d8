"""When a system ends: one pure function of numbers, the same for NumPy arrays and for tensors.

Everything is elementwise: permuting the systems permutes their verdicts, multiplying norms and thresholds
by one number changes nothing, and a NaN in one system changes no other. Nothing here knows of a solver,
of an iterate or of a device, so that the verdict may also stand inside of a compiled loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..interface.solution import Status
from ..interface.stopping import Stopping

# An enumeration's own members are slow in array arithmetic.
RUNNING, CONVERGED, MAX_STEPS, STALLED, DIVERGED, NON_FINITE = (
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

# A norm below this fraction of the one at the last progress counts as progress.
SLOWEST_PROGRESS = 0.999
# A norm below this fraction of the tolerance still meets it when another summation rounds it anew.
REREAD_MARGIN = 0.99
# A recursive residual must be below this fraction of the tolerance: an evaluation decides.
RECURSION_MARGIN = 0.9
# A restart must bring the true residual below this fraction of what it was; otherwise rounding limits it.
REFINED = 0.9
# A fixed point so many times as large as the start and its residual may be on its way to infinity.
FAR = 1e4
# A fixed point that takes so many steps is contracted slowly.
SLOW = 64
# A Krylov method may stagnate for as many steps as there are unknowns, and then converge; up to so many.
_LONGEST_HORIZON = 512


@dataclass(frozen=True)
class Rules:
    """Constants of one solve, the same for every system.

    Attributes:
        patience: Steps without progress after which a system has stalled.
        patience_at_rounding: The same for a system at the rounding level of its dtype.
        divergence: A system diverges when its norm exceeds this multiple of its first.
        ends_itself: The solver says when it can do no more, and patience does not matter.
        margin: A norm below this fraction of the tolerance has converged.
    """

    patience: int
    patience_at_rounding: int
    divergence: float
    ends_itself: bool = False
    margin: float = 1.0

    @staticmethod
    def of(
        stopping: Stopping, n: int, *, recursive: bool, ends_itself: bool, most: float = np.inf
    ) -> Rules:
        """The rules of a solve with `n` unknowns.

        Args:
            stopping: The stopping rule.
            n: Unknowns of a system.
            recursive: The residual comes from a recursion.
            ends_itself: The solver says when it can do no more.
            most: The solver's own limit on patience.
        """
        horizon = min(n, _LONGEST_HORIZON) if recursive else 1
        return Rules(
            patience=max(int(min(stopping.patience, most)), horizon),
            patience_at_rounding=min(max(stopping.patience // 10, horizon), stopping.patience),
            divergence=stopping.divergence,
            ends_itself=ends_itself,
            margin=RECURSION_MARGIN if recursive else 1.0,
        )


@dataclass(frozen=True)
class Progress:
    """How far each system has come; arrays or tensors with one entry per system, or numbers.

    Attributes:
        best: The smallest norm so far.
        mark: The norm at the last step that counted as progress; many small decreases can together
            count as one.
        since: That step.
        reached: The norm has been at the rounding level.
    """

    best: Any
    mark: Any
    since: Any
    reached: Any

    @staticmethod
    def start(batch: int) -> Progress:
        """Before the first look."""
        best = np.full(batch, np.inf)
        return Progress(best, best, np.zeros(batch, np.int64), np.zeros(batch, bool))

    def after(
        self, norm: Any, step: Any, at_rounding: Any = False, excused: Any = False
    ) -> Progress:
        """After a look at `norm`; a system that is `excused` need not have made progress."""
        array = library(norm)
        progress = norm < SLOWEST_PROGRESS * self.mark
        return Progress(
            best=array.fmin(norm, self.best),
            mark=array.where(progress, norm, self.mark),
            since=array.where(progress | excused, step, self.since),
            reached=self.reached | at_rounding,
        )

    def restarted(self) -> Progress:
        """With norms that are to be compared with none before."""
        best = np.full_like(self.best, np.inf)
        return replace(self, best=best, mark=best, since=np.zeros_like(self.since))


def verdict(
    rules: Rules,
    norm: Any,
    threshold: Any,
    first: Any,
    progress: Progress,
    step: Any,
    *,
    at_rounding: Any = False,
    end_status: Any = None,
    last: Any = False,
) -> Any:
    """The status of each system at a look, `RUNNING` where it goes on.

    A residual that meets its tolerance outweighs everything, a norm that is not finite all but that,
    then follow divergence, the solver's own verdict, patience and limits. A system that diverges after
    it reached the rounding level is stalled, not diverged.

    Args:
        rules: Constants of the solve.
        norm: Residual norms.
        threshold: The largest norms of a solution.
        first: Norms at the first look.
        progress: Progress up to and with this look.
        step: The step of the look.
        at_rounding: The systems whose norm is at the rounding level.
        end_status: Status codes of systems for which the solver can do no more, else 0.
        last: No step may follow, for any system or for some.
    """
    array = library(norm)
    # The comparison, which is never true, gives one truth the shape of the systems.
    codes = array.where(last | (progress.since < 0), MAX_STEPS, RUNNING)
    if not rules.ends_itself:
        patience = array.where(at_rounding, rules.patience_at_rounding, rules.patience)
        codes = array.where(step - progress.since >= patience, STALLED, codes)
    if end_status is not None:
        codes = array.where(end_status > 0, end_status, codes)
    ran_away = array.where(progress.reached, STALLED, DIVERGED)
    codes = array.where(norm > rules.divergence * first, ran_away, codes)
    finite = array.isfinite(norm)
    codes = array.where(finite, codes, NON_FINITE)
    return array.where(finite & (norm <= rules.margin * threshold), CONVERGED, codes)


def in_order(ended: np.ndarray, length: int) -> np.ndarray:
    """The systems whose predecessors, in their sequence of `length`, have all `ended`."""
    sequences = ended.reshape(-1, length)
    before = np.ones_like(sequences)
    before[:, 1:] = np.logical_and.accumulate(sequences, axis=1)[:, :-1]
    return before.ravel()


def library(numbers: Any) -> Any:
    """The library of numbers: torch for tensors, else NumPy."""
    return torch if isinstance(numbers, Tensor) else np
