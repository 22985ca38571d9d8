"""Comparison of two studies, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import StudyError
from ..profiles import Interval, bootstrap, mean
from .cells import NEEDED, Floats, show_tolerance, solver_labels
from .tables import Bounded, Column, Group, Table, Value, markdown
from .versions import all_versions

if TYPE_CHECKING:
    import pandas

_SOLVER = ("solver", "gradient", "adjoint_solver")
_PROBLEM = ("problem", "problem_options", "dimension", "systems", "form")
_CELL = (*_SOLVER, *_PROBLEM, "tolerance", "seed", "dtype", "device")
_RATIOS = {"evaluations": "evaluations", "seconds": "time"}


@dataclass(frozen=True)
class Comparison:
    """Differences of two studies; prints as Markdown.

    Attributes:
        names: Names of the two.
        both: Cells that ended in both.
        only: Cells that are in only one of them.
        same: Cells of `both` whose rows are the same row, by key.
        solvers: A line for each solver: cells solved in both and in one alone, ratios of costs.
        changed: A line for each cell whose outcome differs.
        versions: A line for each library whose version differs.
    """

    names: tuple[str, str]
    both: int
    only: tuple[int, int]
    same: int
    solvers: Table
    changed: Table
    versions: Table

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables that have lines."""
        made = (self.solvers, self.changed, self.versions)
        return tuple(table for table in made if table.groups[0].rows)

    def __str__(self) -> str:
        first, second = self.names
        said = (
            f"{self.both:,} cells ended in both, {self.same:,} of them are the same rows. "
            f"{self.only[0]:,} are in {first} alone, {self.only[1]:,} in {second} alone."
        )
        if not self.changed.groups[0].rows and self.both:
            said += " Every cell of both ended alike."
        heading = f"# {first} and {second}\n\n{said}\n"
        return "\n".join([heading, *("#" + markdown(table) for table in self.tables)])


def compare(
    rows_a: pandas.DataFrame,
    rows_b: pandas.DataFrame,
    *,
    names: tuple[str, str] = ("A", "B"),
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare two studies, such as before and after a change, or on two machines.

    Cells are the same if solver, problem, tolerance, seed, dtype and device are; versions may differ. A ratio
    is the geometric mean of the second's cost over the first's on the cells that both solved, with the 95%
    interval of a bootstrap over problems.

    Args:
        rows_a: Rows as `Store.rows` returns them.
        rows_b: Rows to compare with.
        names: Names for the two.
        resamples: Number of resamples of the bootstrap.
        seed: Seed of the bootstrap.

    Returns:
        The comparison; `print` it, or write its `tables`.

    Raises:
        StudyError: Columns are missing, or one has no rows.

    Examples:
        >>> import tempfile
        >>> from implicitly.studies import Row, Store, compare
        >>> def rows(evaluations):
        ...     store = Store(tempfile.mkdtemp())
        ...     store.append(Row("k", "tiny", "boggs", "{}", 2, 1, "root", (), "Newton()", "native", None,
        ...                      None, 1e-8, 0, "float64", "cpu", "{}", "solved", evaluations=evaluations))
        ...     return store.rows()
        >>> comparison = compare(rows(8), rows(6))
        >>> round(comparison.solvers.groups[0].rows[0][5].value, 12)
        0.75
    """
    first, second = (_cells(rows, name) for rows, name in zip((rows_a, rows_b), names, strict=True))
    joined = first.merge(second, on=list(_CELL), how="outer", suffixes=("_a", "_b"), indicator=True)
    both = joined[joined["_merge"] == "both"].reset_index(drop=True)
    counts: Mapping[str, int] = joined["_merge"].value_counts().to_dict()
    return Comparison(
        names=names,
        both=len(both),
        only=(counts.get("left_only", 0), counts.get("right_only", 0)),
        same=int((both["key_a"] == both["key_b"]).sum()),
        solvers=_solvers(both, names, resamples, seed),
        changed=_changed(both, names),
        versions=_versions(first, second, names),
    )


def _cells(rows: pandas.DataFrame, name: str) -> pandas.DataFrame:
    missing = [column for column in ("key", *NEEDED) if column not in rows]
    if missing:
        raise StudyError(
            f"rows of {name} lack the columns {', '.join(missing)}: give them as Store.rows() does"
        )
    if len(rows) == 0:
        raise StudyError(f"{name} has no rows to compare: none of its cells has ended yet")
    kept = rows[["key", *_CELL, "outcome", "evaluations", "seconds", "versions", "ended"]].copy()
    for column in ("gradient", "adjoint_solver"):
        kept[column] = kept[column].astype(object).where(kept[column].notna(), None)
    kept = kept.sort_values("ended", kind="stable").drop_duplicates(list(_CELL), keep="last")
    return kept.sort_index()


def _solvers(both: pandas.DataFrame, names: tuple[str, str], resamples: int, seed: int) -> Table:
    labels = np.asarray(solver_labels(both), dtype=object)
    solved_a, solved_b = ((both[f"outcome_{side}"] == "solved").to_numpy() for side in "ab")
    order = list(dict.fromkeys(labels))
    ratios = {
        name: _ratios(both, labels, order, name, solved_a & solved_b, resamples, seed)
        for name in _RATIOS
        if len(both)
    }
    rows: list[tuple[Value, ...]] = []
    for k, label in enumerate(order):
        here = labels == label
        rows.append(
            (
                label,
                int(here.sum()),
                int((here & solved_a & solved_b).sum()),
                int((here & solved_a & ~solved_b).sum()),
                int((here & ~solved_a & solved_b).sum()),
                *(
                    Bounded(*(float(part[k]) for part in (each.estimate, each.low, each.high)))
                    for each in ratios.values()
                ),
            )
        )
    first, second = names
    return Table(
        name="solvers",
        title="Solvers",
        caption=f"Ratios are {second} over {first}: geometric means over the cells that both solved, "
        "with 95% intervals of the bootstrap over problems.",
        columns=(
            Column("solver", "code"),
            Column("cells", "count"),
            Column("solved in both", "count"),
            Column(f"only in {first}", "count"),
            Column(f"only in {second}", "count"),
            *(Column(f"ratio of {words}", "number") for words in _RATIOS.values()),
        ),
        groups=(Group({}, tuple(rows)),),
    )


def _ratios(
    both: pandas.DataFrame,
    labels: np.ndarray[tuple[int], np.dtype[np.object_]],
    order: list[str],
    name: str,
    solved: np.ndarray[tuple[int], np.dtype[np.bool_]],
    resamples: int,
    seed: int,
) -> Interval:
    import pandas

    costs = [both[f"{name}_{side}"].to_numpy(dtype=np.float64, na_value=np.nan) for side in "ab"]
    least = 1.0 if name == "evaluations" else np.finfo(np.float64).tiny
    logarithm = np.log(np.maximum(costs[1], least)) - np.log(np.maximum(costs[0], least))
    logarithm = np.where(solved, logarithm, np.nan)
    column = pandas.Categorical(labels, categories=order).codes
    owner_of = both.groupby(list(_PROBLEM), sort=False).ngroup().to_numpy()
    places = [*_PROBLEM, "tolerance", "seed", "dtype", "device"]
    line = both.groupby(places, sort=False).ngroup().to_numpy()
    values: Floats = np.full((int(line.max()) + 1, len(order)), np.nan)
    values[line, column] = logarithm
    owner = np.zeros(len(values), dtype=np.int64)
    owner[line] = owner_of
    statistic = mean(values)
    found = bootstrap(
        lambda counts: statistic(counts[:, owner]),
        int(owner.max()) + 1,
        resamples=resamples,
        seed=seed,
    )
    return Interval(np.exp(found.estimate), np.exp(found.low), np.exp(found.high))


def _changed(both: pandas.DataFrame, names: tuple[str, str]) -> Table:
    otherwise = both["outcome_a"] != both["outcome_b"]
    changed, labels = both[otherwise], solver_labels(both)[otherwise]
    rows: list[tuple[Value, ...]] = [
        (
            label,
            cell.problem + ("" if cell.problem_options == "{}" else f" {cell.problem_options}"),
            int(cell.dimension),
            show_tolerance(cell.tolerance),
            cell.dtype,
            int(cell.seed),
            cell.outcome_a,
            cell.outcome_b,
        )
        for label, cell in zip(labels, changed.itertuples(), strict=True)
    ]
    return Table(
        name="changed",
        title="Cells that ended otherwise",
        caption="",
        columns=(
            Column("solver", "code"),
            Column("problem", "code"),
            Column("n", "count"),
            Column("tolerance", "text"),
            Column("dtype", "text"),
            Column("seed", "count"),
            *(Column(name, "text") for name in names),
        ),
        groups=(Group({}, tuple(rows)),),
    )


def _versions(first: pandas.DataFrame, second: pandas.DataFrame, names: tuple[str, str]) -> Table:
    found = [all_versions(frame["versions"]) for frame in (first, second)]
    rows: list[tuple[Value, ...]] = [
        (name, *(" and ".join(side.get(name, ())) or "none" for side in found))
        for name in sorted({*found[0], *found[1]})
        if found[0].get(name) != found[1].get(name)
    ]
    return Table(
        name="versions",
        title="Versions that differ",
        caption="",
        columns=(Column("library", "text"), *(Column(name, "text") for name in names)),
        groups=(Group({}, tuple(rows)),),
    )
