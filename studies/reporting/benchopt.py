"""Rows of a study as benchopt keeps its results, for its plots and its page.

A row of benchopt (Moreau et al. 2022) is one point of one convergence curve. Here it is a record of the
smallest residual so far, at the evaluations (`stop_val`) that it took.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..row import OUTCOMES
from .cells import Cells, Slice, arrange

if TYPE_CHECKING:
    import pandas


def benchopt_table(rows: pandas.DataFrame) -> pandas.DataFrame:
    """A table that `benchopt.plotting.plot_benchmark` reads, of rows as `Store.rows` returns them.

    Data sets are problems, objectives are pairs of a tolerance and an arithmetic, repetitions are seeds.
    `objective_value` is the largest entry of the residual. The last point of a curve is the result: its
    `objective_solved` is 1 or 0, and its `time` is known if the study timed it. A cell without
    evaluations, which crashed, has one point without a value.

    Raises:
        StudyError: No rows, or columns are missing.
    """
    import pandas

    cells = arrange(rows)
    points = [
        point
        for part in cells.slices
        for p, s in np.argwhere(part.index >= 0).tolist()
        for point in _curve(cells, part, p, s)
    ]
    return pandas.DataFrame(points)


def _curve(cells: Cells, part: Slice, p: int, s: int) -> Iterator[dict[str, Any]]:
    """Points of one cell."""
    row = int(part.index[p, s])
    here = cells.frame.iloc[row]
    common = {
        "objective_name": f"residual, tolerance {part.tolerance}, {part.arithmetic}",
        "obj_description": "The largest entry of F, evaluated anew by the study at the end.",
        "solver_name": cells.solvers[s].name,
        "solver_description": str(here["solver_family"]),
        "dataset_name": cells.problems[cells.problem[part.instances[p]]],
        "idx_rep": int(here["seed"]),
        "sampling_strategy": "Iteration",
        "p_outcome": str(here["outcome"]),
    }
    one = np.array([row])
    (evaluations,), (residuals,) = (
        cells.lists(name, one) for name in ("history_evaluations", "history_residual")
    )
    spent = np.nan_to_num(cells.column("evaluations")[row])
    before = evaluations < spent
    for stop, value in zip(evaluations[before], residuals[before], strict=True):
        yield {**common, "stop_val": int(stop), "time": np.nan, "objective_value": float(value)}
    yield {
        **common,
        "stop_val": int(spent),
        "time": float(cells.column("seconds")[row]),
        "objective_value": float(cells.column("residual")[row]),
        "objective_solved": float(here["outcome"] == OUTCOMES[0]),
    }
