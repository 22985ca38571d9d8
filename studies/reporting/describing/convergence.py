"""Convergence: the residual against evaluations, at the tightest tolerance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...profiles import thin_trace
from ..cells import Cells, Indices, Slice
from ..figures import Axis, Curve, CurveFigure, Panel
from .curves import LEAST_SHOWN, sampled

# Limit on the points of all curves of the page together.
MOST_TRACE_POINTS = 60_000

TRACES = CurveFigure(
    name="traces",
    title="Convergence",
    caption="The smallest residual so far against evaluations of the equation's function; Jacobian "
    "products are not counted. The dashed level is the target.",
    x=Axis("evaluations"),
    y=Axis("residual, largest entry"),
    shape="lines",
    facets=("problem",),
)


def traces(cells: Cells) -> Iterator[Panel]:
    """A panel for each problem and arithmetic."""
    for arithmetic in cells.arithmetics:
        part = cells.tightest(arithmetic)
        firsts = _first_instances(cells, part)
        count = max(1, len(firsts) * len(cells.solvers) * len(cells.arithmetics))
        most = int(np.clip(MOST_TRACE_POINTS // count, 8, 60))
        targets = cells.values(part, "target")
        for problem, place in firsts:
            curves = tuple(_curves(cells, part.index[place], most))
            if curves:
                known = targets[place][np.isfinite(targets[place])]
                yield Panel(
                    keys={"problem": cells.problems[problem], "arithmetic": arithmetic},
                    curves=curves,
                    level=float(known.max()) if len(known) and known.max() > 0 else None,
                    note=f"At tolerance {part.tolerance}.",
                )


def _first_instances(cells: Cells, part: Slice) -> list[tuple[int, int]]:
    """Problems to choose from, with the position of the first instance of each on the slice."""
    owner = cells.problem[part.instances]
    return [(problem, int(np.argmax(owner == problem))) for problem in sampled(owner)]


def _curves(cells: Cells, rows: Indices, most: int) -> Iterator[Curve]:
    present = np.flatnonzero(rows >= 0)
    evaluations = cells.lists("history_evaluations", rows[present])
    residuals = cells.lists("history_residual", rows[present])
    for solver, x, y in zip(present.tolist(), evaluations, residuals, strict=True):
        finite = np.isfinite(y)
        if finite.any():
            yield Curve(solver, *thin_trace(x[finite], np.maximum(y[finite], LEAST_SHOWN), most))
