"""Cost against the number of unknowns, for problems that were run in several sizes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..cells import Cells, Floats, Indices
from ..figures import Axis, Curve, CurveFigure, Panel
from .curves import MOST_PROBLEMS, known_points, median_of_known

SCALING = CurveFigure(
    name="scaling",
    title="Cost by size",
    caption="Median cost of the solved cells against the number of unknowns. A line that stops was "
    "not solved beyond.",
    x=Axis("unknowns n"),
    y=Axis("cost"),
    shape="markers",
    facets=("problem",),
)


def scaling(cells: Cells) -> Iterator[Panel]:
    """A panel for each problem of several sizes, measure, tolerance and arithmetic."""
    frame = cells.frame
    family = frame["problem"] + frame["problem_options"].map(
        {text: _short(text) for text in frame["problem_options"].unique()}
    )
    names = np.asarray(family, dtype=object)
    sizes = frame.groupby(names)["dimension"].nunique()
    several = sizes.index[sizes > 1][:MOST_PROBLEMS]
    for name, measure in cells.measures.items() if len(several) else ():
        for part in cells.slices:
            owner = names[part.index.max(axis=1)]
            costs = np.where(cells.solved(part), cells.values(part, name), np.nan)
            for chosen in several:
                here = np.flatnonzero(owner == chosen)
                curves = _by_size(costs[here], cells.dimension[part.instances[here]])
                if curves:
                    keys = {"problem": str(chosen), "cost": measure.shown, **part.keys}
                    yield Panel(keys, curves)


def _short(options: str) -> str:
    return "" if options in ("", "{}") else f" {options}"


def _by_size(costs: Floats, sizes: Indices) -> tuple[Curve, ...]:
    distinct = np.unique(sizes)
    if len(distinct) < 2:
        return ()
    heights = np.array([median_of_known(costs[sizes == size]) for size in distinct])
    return known_points(distinct.astype(np.float64), heights)
