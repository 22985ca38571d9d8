"""Outcomes: how the cells of each solver ended."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...profiles import outcome_counts
from ...row import OUTCOMES
from ..cells import Cells
from ..figures import BarFigure, Bars

OUTCOMES_OF_CELLS = BarFigure(
    name="outcomes",
    title="How cells ended",
    caption="Solved means that the residual, evaluated anew, meets the target. A false success is one "
    "that the solver claimed and the recheck denies.",
)


def bars(cells: Cells) -> Iterator[Bars]:
    """Counts for each tolerance and arithmetic."""
    for part in cells.slices:
        present = part.index >= 0
        owner = np.nonzero(present)[1]
        ended = cells.outcome[part.index[present]]
        yield Bars(part.keys, outcome_counts(ended, owner, len(OUTCOMES), len(cells.solvers)))
