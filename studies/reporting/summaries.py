"""The tables of a study, and the sentences that its page begins with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..profiles import (
    Interval,
    Statistic,
    bootstrap,
    group_exceptions,
    head_to_head,
    mean,
    median,
    outcome_counts,
    performance_profile,
    wilson,
)
from ..row import OUTCOMES
from .cells import MEASURES, Cells, Floats, Slice
from .describing.curves import median_of_known
from .describing.solved_matrix import matrix
from .styling import FAMILY_NAMES
from .tables import Bounded, Column, Group, Table, Value

MOST_EXCEPTIONS = 60
_MOST_NAMED = 4
_LONGEST_TEXT = 400


@dataclass(frozen=True)
class Resampling:
    """How intervals are drawn: problems with replacement, seeds of one problem with it."""

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95


def tables(cells: Cells, highlighted: tuple[int, ...], resampling: Resampling) -> tuple[Table, ...]:
    """Every table that these cells have something to show in."""
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
    """A line for each solver."""
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
        shares = _shares(cells, part, np.where(part.index >= 0, hits, np.nan), resampling)
        spent, least = [], []
        for name in measures:
            values = np.where(hits, cells.values(part, name), np.nan)
            spent.append(_resampled(cells, part, median(values), resampling))
            least.append(_cheapest_shares(cells, part, name)[0])
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
                    *(_bounded(interval, s) for interval in spent),
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
    """The highlighted solvers two by two."""
    groups = []
    chosen = list(highlighted)
    for part in cells.slices:
        costs, known = cells.costs(part, "evaluations")
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
        caption="Share of problems that the solver of the row solves with no more evaluations than that "
        "of the column: the performance profile of these two alone at τ = 1.",
        columns=(
            Column("solver", "code"),
            *(Column(cells.solvers[s].name, "share") for s in chosen),
        ),
        groups=tuple(groups),
    )


def taxonomy(cells: Cells) -> Table:
    """How the cells of each family ended."""
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
    """What was raised, by text."""
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
            _listed(raised.owners),
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


def headlines(cells: Cells, part: Slice, resampling: Resampling) -> tuple[str, ...]:
    """What the cells of a slice say, in sentences."""
    hits = cells.solved(part)
    problems = len(part.instances)
    said = [_most_solved(cells, part, resampling)]
    by_nobody = np.flatnonzero(~hits.any(axis=1))
    run_by_all = (part.index >= 0).all(axis=0)
    if len(by_nobody):
        names = tuple(
            dict.fromkeys(cells.problems[cells.problem[part.instances[k]]] for k in by_nobody)
        )
        verb = "is" if len(by_nobody) == 1 else "are"
        said.append(
            f"{counted(len(by_nobody), 'problem')} of {problems} {verb} solved by nobody: {_listed(names)}."
        )
    elif problems > 1:
        said.append(f"Each of the {problems} problems is solved by somebody.")
    for name in cells.measures:
        sentence = _cheapest(cells, part, name)
        if sentence:
            said.append(sentence)
    outcomes = cells.outcomes(part)
    false = outcomes == OUTCOMES.index("false success")
    if false.any():
        owners = tuple(cells.solvers[s].name for s in np.argsort(-false.sum(axis=0), kind="stable"))
        owners = owners[: int(false.any(axis=0).sum())]
        said.append(
            f"{counted(int(false.sum()), 'success', 'successes')} that a solver claimed "
            f"{'is' if false.sum() == 1 else 'are'} denied by the recheck of the residual, of: "
            f"{_listed(owners)}."
        )
    else:
        said.append("No success that a solver claimed is denied by the recheck of the residual.")
    broken = {
        name: int((outcomes == OUTCOMES.index(name)).sum())
        for name in ("timed out", "crashed", "out of memory", "error")
    }
    if any(broken.values()):
        ends = ", ".join(f"{count} {name}" for name, count in broken.items() if count)
        said.append(f"Cells that came to no result: {ends}.")
    if not run_by_all.all():
        said.append(
            f"{counted(int((~run_by_all).sum()), 'solver')} of {len(cells.solvers)} "
            "were not run on all problems; what was not run counts as not solved in profiles."
        )
    return tuple(said)


def _most_solved(cells: Cells, part: Slice, resampling: Resampling) -> str:
    hits = cells.solved(part)
    totals = hits.sum(axis=0)
    best = np.flatnonzero(totals == totals.max())
    problems = len(part.instances)
    where = f"At tolerance {part.tolerance} in {part.arithmetic}"
    if totals.max() == 0:
        return f"{where}, no solver solves any of {counted(problems, 'problem')}."
    names = tuple(cells.solvers[s].name for s in best)
    ((_, low, high),) = _shares(cells, part, hits[:, best[:1]].astype(float), resampling)
    bounds = ""
    if np.isfinite(low):
        bounds = f"; {100 * resampling.level:.0f}% interval {100 * low:.0f} to {100 * high:.0f}%"
    verb = "solves" if len(best) == 1 else "solve"
    return (
        f"{where}, {_listed(names)} {verb} most: {totals.max()} of {problems} problems "
        f"({100 * totals.max() / problems:.0f}%{bounds})."
    )


def _cheapest(cells: Cells, part: Slice, name: str) -> str | None:
    if len(cells.solvers) < 2:
        return None
    shares, problems = _cheapest_shares(cells, part, name)
    if problems == 0 or not shares.any():
        return None
    best = np.flatnonzero(shares == shares.max())
    names = tuple(cells.solvers[s].name for s in best)
    verb = "needs" if len(best) == 1 else "each need"
    times = round(shares.max() * problems)
    quantity = "fewest evaluations" if name == "evaluations" else f"least {MEASURES[name].short}"
    return f"{_listed(names)} {verb} the {quantity} most often: on {times} of {problems} problems."


def _cheapest_shares(cells: Cells, part: Slice, name: str) -> tuple[Floats, int]:
    """For each solver the share of problems on which nobody needed less, and of how many that is known."""
    costs, known = cells.costs(part, name)
    if not known.any():
        return np.full(len(cells.solvers), np.nan), 0
    return np.array([float(profile(1.0)) for profile in performance_profile(costs)]), len(costs)


def _resampled(cells: Cells, part: Slice, statistic: Statistic, how: Resampling) -> Interval:
    """A statistic of instances, with problems resampled."""
    distinct, owner = np.unique(cells.problem[part.instances], return_inverse=True)
    return bootstrap(
        lambda counts: statistic(counts[:, owner]),
        len(distinct),
        level=how.level,
        resamples=how.resamples,
        seed=how.seed,
    )


def _shares(cells: Cells, part: Slice, hits: Floats, how: Resampling) -> list[Bounded]:
    """What share of its column of `hits` each solver solves, NaN left out.

    Where every problem occurs once, with the score interval. Where problems have several instances, which
    are no independent trials, with that of the bootstrap; should all or nothing be solved, resampling
    gives no other share, and the score interval of as many trials as there are problems takes its place.
    """
    owner = cells.problem[part.instances]
    resampled = _resampled(cells, part, mean(hits), how)
    shares = []
    for k, run in enumerate(~np.isnan(hits.T)):
        problems, instances = len(np.unique(owner[run])), int(run.sum())
        share = _bounded(resampled, k)
        if instances and (problems == instances or share.low == share.high):
            low, high = wilson(round(share.value * problems), problems, how.level)
            share = Bounded(share.value, low, high)
        shares.append(share)
    return shares


def _bounded(interval: Interval, k: int) -> Bounded:
    return Bounded(float(interval.estimate[k]), float(interval.low[k]), float(interval.high[k]))


def _listed(names: tuple[str, ...]) -> str:
    if len(names) > _MOST_NAMED + 1:
        return ", ".join(names[:_MOST_NAMED]) + f" and {len(names) - _MOST_NAMED} others"
    if len(names) > 1:
        return ", ".join(names[:-1]) + " and " + names[-1]
    return names[0]


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number and what it is of, such as `"2 problems"`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
