"""Tables of a study."""

from __future__ import annotations

import numpy as np

from ..profiles import group_exceptions, head_to_head, median, outcome_counts
from ..row import OUTCOMES
from .cells import Cells
from .describing.curves import median_of_known
from .describing.solved_matrix import matrix
from .intervals import Resampling, bounded, cheapest_shares, resample, shares_solved
from .styling import FAMILY_NAMES
from .tables import Column, Group, Table, Value
from .wording import listed

MOST_EXCEPTIONS = 60
_LONGEST_TEXT = 400


def tables(cells: Cells, highlighted: tuple[int, ...], resampling: Resampling) -> tuple[Table, ...]:
    """Every table for which these cells have data."""
    made = (
        summary(cells, resampling),
        solved(cells),
        pairs(cells, highlighted),
        taxonomy(cells),
        exceptions(cells),
        gradient_errors(cells),
    )
    return tuple(table for table in made if any(group.rows for group in table.groups))


def summary(cells: Cells, resampling: Resampling) -> Table:
    """Summary with a line for each solver."""
    measures = cells.measures
    columns = [
        Column("solver", "code"),
        Column("family", "text"),
        Column("solved", "text"),
        Column("share solved", "share"),
        Column("false successes", "count"),
        *(Column(f"median {measure.short}", "number") for measure in measures.values()),
        *(Column(f"cheapest by {measure.short}", "share") for measure in measures.values()),
    ]
    groups = []
    for part in cells.slices:
        hits = cells.solved(part)
        outcomes = cells.outcomes(part)
        shares = shares_solved(cells, part, np.where(part.index >= 0, hits, np.nan), resampling)
        spent, least = [], []
        for name in measures:
            values = np.where(hits, cells.values(part, name), np.nan)
            spent.append(resample(cells, part, median(values), resampling))
            least.append(cheapest_shares(cells, part, name)[0])
        rows: list[tuple[Value, ...]] = []
        run = (part.index >= 0).sum(axis=0)
        false = (outcomes == OUTCOMES.index("false success")).sum(axis=0)
        for s in cells.ranked((part,)):
            if run[s] == 0:
                continue
            rows.append(
                (
                    cells.solvers[s].name,
                    cells.solvers[s].family,
                    f"{hits[:, s].sum()}/{run[s]}",
                    shares[s],
                    int(false[s]),
                    *(bounded(interval, s) for interval in spent),
                    *(float(cheapest[s]) for cheapest in least),
                )
            )
        groups.append(Group(part.keys, tuple(rows)))
    percent = f"{100 * resampling.level:.0f}%"
    return Table(
        name="summary",
        title="Solvers",
        caption=f"In brackets {percent} intervals: of medians, and of shares where problems have several "
        f"instances, by the bootstrap over problems ({resampling.resamples} resamples, BCa), of other shares "
        "Wilson's. Medians are over the cells that this solver solved, "
        "which are not the same for each; time is in seconds; work is evaluations and Jacobian "
        "products. The last columns are shares of all problems on which nobody needed less.",
        columns=tuple(columns),
        groups=tuple(groups),
    )


def solved(cells: Cells) -> Table:
    """The solved matrix."""
    figure = matrix(cells)
    return Table(
        name="solved",
        title=figure.title,
        caption=figure.caption,
        columns=(
            Column("problem", "code"),
            *(Column(solver.name, "mark") for solver in cells.solvers),
        ),
        groups=tuple(
            Group(
                panel.keys,
                tuple((name, *line) for name, line in zip(panel.rows, panel.texts, strict=True)),
            )
            for panel in figure.panels
        ),
    )


def pairs(cells: Cells, highlighted: tuple[int, ...]) -> Table:
    """Pairwise comparison of the highlighted solvers."""
    groups = []
    chosen = list(highlighted)
    for part in cells.slices:
        costs, known = cells.costs(part, "work")
        if len(chosen) < 2 or not known.any():
            continue
        shares = head_to_head(costs[:, chosen])
        rows: list[tuple[Value, ...]] = [
            (
                cells.solvers[s].name,
                *(None if i == j else float(shares[i, j]) for j in range(len(chosen))),
            )
            for i, s in enumerate(chosen)
        ]
        groups.append(Group(part.keys, tuple(rows)))
    return Table(
        name="pairs",
        title="Two by two",
        caption="Share of problems that the solver of the row solves with no more work "
        "(evaluations and Jacobian products) than that of the column: the performance profile of "
        "these two alone at τ = 1.",
        columns=(
            Column("solver", "code"),
            *(Column(cells.solvers[s].name, "share") for s in chosen),
        ),
        groups=tuple(groups),
    )


def taxonomy(cells: Cells) -> Table:
    """Counts of the outcomes of each family."""
    families = tuple(dict.fromkeys(solver.family for solver in cells.solvers))
    family = np.array([families.index(solver.family) for solver in cells.solvers])
    groups = []
    for part in cells.slices:
        present = part.index >= 0
        owner = np.broadcast_to(family, part.index.shape)[present]
        counts = outcome_counts(
            cells.outcome[part.index[present]], owner, len(OUTCOMES), len(families)
        )
        rows: list[tuple[Value, ...]] = [
            (FAMILY_NAMES.get(name, name), *map(int, counts[k])) for k, name in enumerate(families)
        ]
        rows.append(("all", *map(int, counts.sum(axis=0))))
        groups.append(Group(part.keys, tuple(rows)))
    return Table(
        name="outcomes",
        title="How cells ended",
        caption="Counts of cells.",
        columns=(Column("family", "text"), *(Column(name, "count") for name in OUTCOMES)),
        groups=tuple(groups),
    )


def exceptions(cells: Cells) -> Table:
    """Exceptions by text."""
    texts = [text if isinstance(text, str) else None for text in cells.frame["exception"]]
    owner = np.full(len(cells.frame), -1)
    for part in cells.slices:
        present = part.index >= 0
        owner[part.index[present]] = np.nonzero(present)[1]
    grouped = group_exceptions(texts, [cells.solvers[s].name for s in owner])
    rows: list[tuple[Value, ...]] = [
        (
            raised.count,
            str(cells.frame["outcome"].iloc[raised.first]),
            listed(raised.owners),
            str(cells.frame["problem"].iloc[raised.first]),
            _shortened(raised.text),
        )
        for raised in grouped[:MOST_EXCEPTIONS]
    ]
    left = len(grouped) - len(rows)
    more = f" {left} rarer texts are left out." if left > 0 else ""
    return Table(
        name="exceptions",
        title="What was raised",
        caption="Texts that differ in numbers only count as one; the first of them is shown."
        + more,
        columns=(
            Column("cells", "count"),
            Column("outcome", "text"),
            Column("solvers", "text"),
            Column("first on", "code"),
            Column("text", "text"),
        ),
        groups=(Group({}, tuple(rows)),),
    )


def gradient_errors(cells: Cells) -> Table:
    """Median gradient error of each solver at each tolerance."""
    groups = []
    known = np.isfinite(cells.column("gradient_error")).any()
    for arithmetic in cells.arithmetics if known else ():
        parts = {part.tolerance: part for part in cells.slices if part.arithmetic == arithmetic}
        medians = np.full((len(cells.solvers), len(cells.tolerances)), np.nan)
        for k, tolerance in enumerate(cells.tolerances):
            if tolerance in parts:
                errors = cells.values(parts[tolerance], "gradient_error")
                medians[:, k] = median_of_known(errors)
        rows: list[tuple[Value, ...]] = [
            (solver.name, *map(float, medians[s]))
            for s, solver in enumerate(cells.solvers)
            if np.isfinite(medians[s]).any()
        ]
        groups.append(Group({"arithmetic": arithmetic}, tuple(rows)))
    return Table(
        name="gradient-error",
        title="Gradient error and tolerance",
        caption="Median distance from the dense implicit gradient, relative to its length, by the "
        "tolerance of the forward solve.",
        columns=(
            Column("solver", "code"),
            *(Column(f"at {tolerance}", "number") for tolerance in cells.tolerances),
        ),
        groups=tuple(groups),
    )


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
