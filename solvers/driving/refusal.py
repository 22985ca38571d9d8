"""Claims that were refused: systems that cannot go on end, with a reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..interface.tolerance import Budget
from .ledger import Ledger
from .progress import MAX_STEPS, STALLED


def end_refused(
    ledger: Ledger,
    budget: Budget,
    refused: np.ndarray,
    hopeless: np.ndarray,
    can_go_on: bool,
    account: Callable[[int], str],
) -> np.ndarray:
    """End refused systems that cannot go on, as stalled or at their limits.

    Args:
        ledger: The record of the solve.
        budget: The limits.
        refused: The systems whose claim was refused, boolean, `(batch,)`.
        hopeless: Systems that another run would not bring closer.
        can_go_on: The solver may be started again where it ended.
        account: The reason for a system.

    Returns:
        The systems that have ended.
    """
    spent = np.asarray(budget.spent(ledger.steps))
    over = refused & (spent | hopeless | (not can_go_on))
    ends = np.where(spent & can_go_on, MAX_STEPS, STALLED)
    ledger.end(over, ends[over], ledger.steps[over])
    for system in np.flatnonzero(over):
        ledger.reasons[int(system)] = account(int(system))
    return np.asarray(over)
