"""The error of a fixed point, from its last step and the residuals before and after."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .progress import library
from .reading import Reading


def error_bound(moved: Any, norm: Any, before: Any, size: Any) -> Any:
    """The bound `‖s‖ ρ / (1 − ρ)` beside `size`, for arrays or tensors; infinite where nothing contracts.

    Args:
        moved: Lengths of the last moves.
        norm: Residual norms after them.
        before: Residual norms before them.
        size: Sizes of the iterates.
    """
    rate = norm / before
    return library(norm).where(rate < 1, moved * rate / (1 - rate) / size, math.inf)


class Contraction:
    """Compares the last two looks at a solve.

    If residuals fall by `ρ` where the iterate moves by `s`, its error is `‖s‖ ρ / (1 − ρ)`: exactly so for
    the plain iteration in one unknown, and an upper bound where `ρ` bounds the contraction. Of Anderson's
    and Broyden's methods, whose steps estimate the error that they remove, it is one as well.

    Source: Ortega & Rheinboldt 1970, theorem 12.1.2 (the bound after Banach's theorem).
    """

    def __init__(self) -> None:
        self._before: tuple[Tensor, Reading, np.ndarray | None] | None = None
        self._now: tuple[Tensor, Reading, np.ndarray | None] | None = None

    def look(self, z: Tensor, reading: Reading, rows: np.ndarray | None) -> None:
        """Take note of a look at the iterates `z` of the systems `rows`."""
        self._before, self._now = self._now, (z, reading, rows)

    def restart(self) -> None:
        """Forget the looks before: the solver begins anew."""
        self._before = self._now = None

    def error(self) -> np.ndarray:
        """Relative errors of the iterates of the last look; NaN where it is the first."""
        assert self._now is not None  # for the type checker: a look was taken
        z, reading, rows = self._now
        norm, size = _of(reading.norm, rows), _of(reading.reference, rows)
        if self._before is None or self._before[0].data_ptr() == z.data_ptr():
            return np.full(len(norm), np.nan)
        earlier, past, all_rows = self._before
        if rows is not None and (all_rows is None or len(all_rows) != len(rows)):
            kept = rows if all_rows is None else np.searchsorted(all_rows, rows)
            earlier = earlier[torch.from_numpy(kept).to(z.device)]
        moved = torch.linalg.vector_norm(z.detach() - earlier.detach(), dim=1).cpu().numpy()
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            before = _of(past.norm, rows)
            return np.asarray(error_bound(moved, norm.astype(np.float64), before, size))


def _of(entries: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    return entries if rows is None else entries[rows]
