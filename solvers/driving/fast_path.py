"""The look that most looks are: every system runs, made progress and is above its tolerance.

A tenth of the arithmetic of a full look tells it, and the bookkeeping can wait: without this an
iteration of Anderson's method costs 46 % more at batch 1, and 35 % at batch 8 (256 unknowns).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ..interface.tolerance import Tolerance
from .progress import SLOWEST_PROGRESS
from .reading import Reading

# Safety factor on tolerances: a norm read in a coarse dtype may round across the tolerance.
_SAFETY = 1.01


class FastPath:
    """Compares norms as they are read, and keeps the last look whose bookkeeping is postponed.

    Attributes:
        open: No system has ended.
        reached: The systems whose norm has been at the rounding level at such a look; `None` for none.
        floor: The absolute tolerance, in the units of readings.
        postponed: The step, iterate and reading of that look; the iterate is `None` where the solver
            forms it on demand.
    """

    def __init__(self, tolerance: Tolerance, level: float, unit: float) -> None:
        self.open = len(tolerance.rtol) > 0
        self.postponed: tuple[int, Tensor | None, Reading] | None = None
        self.reached: np.ndarray | None = None
        self._level, self._least = level, _SAFETY * np.asarray(tolerance.rtol)
        self._plainly_above = np.maximum(self._least, _SAFETY * level)
        self.floor, self._unit = tolerance.atol / unit, unit
        self._most: Any = np.inf

    def advances(self, reading: Reading) -> bool:
        """True if every system runs, made progress, and is above its tolerance."""
        if not self.open or reading.end_status is not None:
            return False
        norm, reference = reading.norm, reading.reference
        if not self._above(self._plainly_above, norm, reference) and not self._near(
            norm, reference
        ):
            return False
        self._most = SLOWEST_PROGRESS * norm
        return True

    def _above(self, relative: np.ndarray, norm: np.ndarray, reference: np.ndarray) -> bool:
        """True if every norm is above a relative tolerance and made progress."""
        ahead = (norm > relative * reference + self.floor) & (norm < self._most)
        return np.count_nonzero(ahead) == len(ahead)

    def _near(self, norm: np.ndarray, reference: np.ndarray) -> bool:
        """The same where norms are at the rounding level and above the tolerance."""
        if not self._above(self._least, norm, reference):
            return False
        near = norm.astype(np.float64) <= self._level * reference.astype(np.float64)
        self.reached = near if self.reached is None else self.reached | near
        return True

    def expect(self, norm: np.ndarray) -> None:
        """Progress at the next look means a norm below this one, root-mean-square in float64."""
        self._most = SLOWEST_PROGRESS * norm / self._unit
