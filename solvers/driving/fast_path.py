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
        floor: The absolute tolerance, in the units of readings.
        postponed: The step, iterate and reading of that look; the iterate is `None` where the solver
            forms it on demand.
    """

    def __init__(self, tolerance: Tolerance, level: float, unit: float) -> None:
        self.open = len(tolerance.rtol) > 0
        self.postponed: tuple[int, Tensor | None, Reading] | None = None
        self._least = _SAFETY * np.maximum(tolerance.rtol, level)
        self.floor, self._unit = tolerance.atol / unit, unit
        self._most: Any = np.inf

    def advances(self, reading: Reading) -> bool:
        """True if every system runs, made progress, and is above its tolerance."""
        if not self.open or reading.end_status is not None:
            return False
        norm = reading.norm
        ahead = (norm > self._least * reading.reference + self.floor) & (norm < self._most)
        if np.count_nonzero(ahead) < len(ahead):
            return False
        self._most = SLOWEST_PROGRESS * norm
        return True

    def expect(self, norm: np.ndarray) -> None:
        """Progress at the next look means a norm below this one, root-mean-square in float64."""
        self._most = SLOWEST_PROGRESS * norm / self._unit
