"""Systems that are solved as independent ones, and are not: their residuals once all have ended.

A system that has converged stays where it is while others go on. If its equation depends on them, by the
statistics of a batch or a mean over it, its residual then grows, and what was a solution is none. So the
residual of all systems together is looked at once they have ended. It is mostly known: systems that have
ended are evaluated with the others, unless they are dropped.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from ..interface.norms import rms
from ..interface.tolerance import Budget
from .active import Active
from .ledger import Ledger
from .progress import CONVERGED
from .refusal import end_refused

# Residuals at one point may differ by this factor, and by so many roundings.
_GROWTH, _ROUNDINGS = 10.0, 16.0
# Each time that a system runs again its residual must have grown less than the time before.
_LESS = 0.9

COUPLED = (
    "its residual grew from {before:.2g} to {now:.2g} while other systems went on: the systems depend on "
    "each other, as by batch statistics or a mean over the batch. Solve them as one, with batch_dims=0, or "
    "remove what couples them (layer.eval())"
)


class Independence:
    """Looks at the residuals of all systems together, once all have ended.

    Args:
        ledger: The record of the solve.
        active: The systems.
        budget: The limits.
        evaluates: Evaluate the residual where it is not known.
        coupled: The systems are known to be coupled.
    """

    def __init__(
        self, ledger: Ledger, active: Active, budget: Budget, *, evaluates: bool, coupled: bool
    ) -> None:
        problem = active.whole
        self._ledger, self._active, self._budget = ledger, active, budget
        self._evaluates = evaluates
        known = coupled or problem.linear or problem.compiled is not None
        self._asked = len(ledger.status) > 1 and not known
        self._grown_to = np.full(len(ledger.status), np.inf)

    def examine(self, first: np.ndarray, *, can_go_on: bool) -> Tensor | None:
        """Let systems run again whose residual has grown since they ended, or end them as stalled.

        Args:
            first: Residual norms at the start, which set the size of roundings.
            can_go_on: The solver may be started again where it ended.

        Returns:
            The residual at the kept iterates if a system runs again, else `None`.
        """
        ledger = self._ledger
        converged = ledger.status == CONVERGED
        if not self._asked or not converged.any() or np.ptp(ledger.steps) == 0:
            return None
        if ledger.z.requires_grad or is_functorch_wrapped_tensor(ledger.z):
            return None
        problem = self._active.whole
        residual = problem.known_residual(ledger.z)
        if residual is None:
            if not self._evaluates:
                return None
            residual = self._active.restore().residual(ledger.z)
        now, size = (rms(rows).cpu().double().numpy() for rows in (residual, ledger.z))
        rounding = _ROUNDINGS * problem.eps(ledger.z) * (size + first)
        grown = converged & ~(
            now <= np.maximum(ledger.threshold, _GROWTH * (ledger.norm + rounding))
        )
        if not grown.any():
            return None
        hopeless, before = ~(now < _LESS * self._grown_to), ledger.norm
        over = end_refused(
            ledger, self._budget, grown, hopeless, can_go_on,
            lambda system: COUPLED.format(before=before[system], now=now[system]),
        )  # fmt: skip
        ledger.norm = np.where(grown, now, ledger.norm)
        ledger.error = np.where(grown, np.nan, ledger.error)
        self._grown_to = np.where(grown, now, self._grown_to)
        again = grown & ~over
        if not again.any():
            return None
        self._active.restore()
        ledger.reopen(again)
        return residual
