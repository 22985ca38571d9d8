"""Rows of a study arranged for comparison: instances × solvers, a slice for each tolerance and arithmetic."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import StudyError
from ..row import OUTCOMES

if TYPE_CHECKING:
    import pandas

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

FAMILIES = ("native", "adapter", "scipy", "peer")
NEEDED = (
    *("problem", "problem_options", "dimension", "systems", "form", "solver", "solver_family"),
    *("gradient", "adjoint_solver", "tolerance", "seed", "dtype", "device", "versions", "outcome"),
    *("residual", "residual_start", "target", "evaluations", "jvps", "vjps", "seconds"),
    *("history_evaluations", "history_residual", "gradient_error", "exception", "ended", "tags"),
)


class Measure(NamedTuple):
    """Names of a measure of cost: in a choice, on an axis, in a table."""

    shown: str
    axis: str
    short: str


MEASURES = {
    "work": Measure("evaluations and Jacobian products", "evaluations + JVPs + VJPs", "work"),
    "evaluations": Measure("evaluations", "evaluations", "evaluations"),
    "seconds": Measure("time", "seconds", "time"),
}
_SOLVED = OUTCOMES.index("solved")


@dataclass(frozen=True)
class Solver:
    """A compared solver, with its gradient mode and adjoint solver if they vary."""

    name: str
    family: str


@dataclass(frozen=True)
class Slice:
    """Cells of one tolerance and arithmetic.

    Attributes:
        tolerance: The tolerance as text, such as `"1e-08"`.
        arithmetic: The dtype, and the device if there are several.
        instances: Numbers of the instances that occur, shape `(p,)`.
        index: Number of each cell's row, shape `(p, solvers)`; −1 for none.
    """

    tolerance: str
    arithmetic: str
    instances: Indices
    index: Indices

    @property
    def keys(self) -> Mapping[str, str]:
        """Keys of the slice."""
        return {"tolerance": self.tolerance, "arithmetic": self.arithmetic}


@dataclass(frozen=True)
class Cells:
    """All cells of a study.

    Attributes:
        frame: The latest row of each cell.
        solvers: The solvers by family, then by name.
        problems: Names of the problems, with options and size if they vary.
        problem: Number of each instance's problem, shape `(instances,)`.
        dimension: Its number of unknowns, shape `(instances,)`.
        slices: Slices by arithmetic, then from the loosest tolerance to the tightest.
        superseded: Number of rows that were replaced by later ones of the same cell.
    """

    frame: pandas.DataFrame
    solvers: tuple[Solver, ...]
    problems: tuple[str, ...]
    problem: Indices
    dimension: Indices
    slices: tuple[Slice, ...]
    superseded: int
    _columns: dict[str, Floats] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def outcome(self) -> Indices:
        """Number in `OUTCOMES` of each row's outcome."""
        import pandas

        codes = pandas.Categorical(self.frame["outcome"], categories=OUTCOMES).codes
        return np.asarray(codes, dtype=np.int64)

    @property
    def tolerances(self) -> tuple[str, ...]:
        """All tolerances from the loosest to the tightest."""
        return tuple(dict.fromkeys(part.tolerance for part in self.slices))

    @property
    def arithmetics(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.arithmetic for part in self.slices))

    def tightest(self, arithmetic: str) -> Slice:
        """The slice of the smallest tolerance."""
        return self.by_tolerance(arithmetic)[-1]

    def by_tolerance(self, arithmetic: str) -> list[Slice]:
        """Slices of one arithmetic, from the loosest tolerance to the tightest."""
        return [part for part in self.slices if part.arithmetic == arithmetic]

    def column(self, name: str) -> Floats:
        """A column as floats, NaN for unknown entries; `work` is the sum of evaluations, JVPs and VJPs."""
        if name not in self._columns:
            if name == "work":
                products = np.nan_to_num(self.column("jvps")) + np.nan_to_num(self.column("vjps"))
                self._columns[name] = self.column("evaluations") + products
            else:
                self._columns[name] = self.frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
        return self._columns[name]

    def values(self, part: Slice, name: str) -> Floats:
        """A column on a slice, shape `(p, solvers)`, NaN without a cell."""
        return np.where(part.index >= 0, self.column(name)[part.index], np.nan)

    def outcomes(self, part: Slice) -> Indices:
        """Numbers of the outcomes on a slice, shape `(p, solvers)`, −1 without a cell."""
        return np.where(part.index >= 0, self.outcome[part.index], -1)

    def solved(self, part: Slice) -> NDArray[np.bool_]:
        """Mask of the solved cells of a slice, shape `(p, solvers)`."""
        return np.asarray(self.outcomes(part) == _SOLVED)

    def lists(self, name: str, rows: Indices) -> list[Floats]:
        """A column of lists as arrays; unknown entries are empty."""
        column, empty = self.frame[name].to_numpy(), np.empty(0)
        return [
            empty if column[row] is None else np.asarray(column[row], dtype=np.float64)
            for row in rows
        ]

    @property
    def measures(self) -> dict[str, Measure]:
        """Measures of cost that at least one cell has."""
        return {
            name: measure
            for name, measure in MEASURES.items()
            if np.isfinite(self.column(name)).any()
        }

    def costs(self, part: Slice, name: str) -> tuple[Floats, NDArray[np.bool_]]:
        """Costs of cells, `inf` if failed or not run, and a mask of the instances with known costs.

        Instances that were solved without measuring the cost are left out. A cell without evaluations
        counts as one evaluation, since ratios need positive costs.
        """
        solved, values = self.solved(part), self.values(part, name)
        known = np.asarray(~(solved & np.isnan(values)).any(axis=1))
        least = np.finfo(np.float64).tiny if name == "seconds" else 1.0
        costs = np.where(solved, np.maximum(values, least), np.inf)
        return costs[known], known

    def ranked(self, parts: Sequence[Slice]) -> list[int]:
        """Numbers of the solvers, ranked by cells solved, then by work."""
        solved = np.zeros(len(self.solvers))
        spent = np.zeros(len(self.solvers))
        for part in parts:
            hits = self.solved(part)
            logarithms = np.log(np.maximum(self.values(part, "work"), 1))
            solved += hits.sum(axis=0)
            spent += np.where(hits, np.nan_to_num(logarithms), 0).sum(axis=0)
        typical = spent / np.maximum(solved, 1)
        return [int(s) for s in np.lexsort((typical, -solved))]


def arrange(rows: pandas.DataFrame) -> Cells:
    """Arrange rows as `Store.rows` returns them.

    Raises:
        StudyError: No rows, or columns are missing.
    """
    import pandas

    missing = [name for name in NEEDED if name not in rows]
    if missing:
        raise StudyError(
            f"rows lack the columns {', '.join(missing)}: give them as Store.rows() does"
        )
    if len(rows) == 0:
        raise StudyError("there are no rows to report on: no cell of this study has ended yet")
    frame = rows.sort_values("ended", kind="stable", ignore_index=True)
    labels = pandas.DataFrame(
        {
            "solver": solver_labels(frame),
            "problem": _problem_labels(frame),
            "arithmetic": _arithmetics(frame),
            "seed": frame["seed"],
            "tolerance": frame["tolerance"],
        }
    )
    latest = ~labels.duplicated(keep="last")
    frame, labels = frame[latest].reset_index(drop=True), labels[latest].reset_index(drop=True)
    solver, solvers = _numbered_solvers(labels["solver"], frame["solver_family"])
    problem, problems = pandas.factorize(labels["problem"], sort=True)
    instance, places = pandas.factorize(problem * (labels["seed"].max() + 2) + labels["seed"] + 1)
    order = np.argsort(places, kind="stable")
    instance = np.argsort(order, kind="stable")[instance]
    first_of_each = np.unique(instance, return_index=True)[1]
    return Cells(
        frame=frame,
        solvers=solvers,
        problems=tuple(map(str, problems)),
        problem=problem[first_of_each],
        dimension=frame["dimension"].to_numpy(dtype=np.int64)[first_of_each],
        slices=_slices(labels, solver, instance, len(solvers)),
        superseded=len(rows) - len(frame),
    )


def show_tolerance(tolerance: float) -> str:
    """A tolerance as text.

    Examples:
        >>> show_tolerance(1e-8), show_tolerance(0.001)
        ('1e-08', '0.001')
    """
    return f"{tolerance:g}"


def _slices(
    labels: pandas.DataFrame, solver: Indices, instance: Indices, solvers: int
) -> tuple[Slice, ...]:
    found = []
    for arithmetic in sorted(labels["arithmetic"].unique(), key=_arithmetic_order):
        here = (labels["arithmetic"] == arithmetic).to_numpy()
        for tolerance in sorted(labels["tolerance"][here].unique(), reverse=True):
            rows = np.flatnonzero(here & (labels["tolerance"] == tolerance).to_numpy())
            instances, local = np.unique(instance[rows], return_inverse=True)
            index = np.full((len(instances), solvers), -1)
            index[local, solver[rows]] = rows
            found.append(Slice(show_tolerance(tolerance), str(arithmetic), instances, index))
    return tuple(found)


def _arithmetic_order(arithmetic: str) -> tuple[int, str]:
    return (0 if arithmetic.startswith("float64") else 1, arithmetic)


def _arithmetics(frame: pandas.DataFrame) -> pandas.Series[Any]:
    if frame["device"].nunique() == 1:
        return frame["dtype"]
    return frame["dtype"] + " on " + frame["device"]


def solver_labels(frame: pandas.DataFrame) -> pandas.Series[Any]:
    """Names of solvers, with gradient mode and adjoint solver if they vary."""
    label = frame["solver"]
    for column, words in (("gradient", " · "), ("adjoint_solver", " · adjoint ")):
        if frame[column].nunique(dropna=False) > 1:
            label = label + (words + frame[column].astype("string")).fillna("").astype(str)
    return label


def _problem_labels(frame: pandas.DataFrame) -> pandas.Series[Any]:
    """Names and options of problems, with size, number of systems and form if they vary."""
    columns = ["problem", "problem_options", "dimension", "systems", "form"]
    numbers, kinds = frame[columns].fillna({"problem_options": "{}"}).pipe(_factorize_rows)
    names = kinds["problem"] + [_written(options) for options in kinds["problem_options"]]
    for column, words in (("dimension", " n={}"), ("systems", " systems={}"), ("form", " {}")):
        several = kinds.groupby(names)[column].transform("nunique") > 1
        names = names.where(~several, names + [words.format(value) for value in kinds[column]])
    return names.iloc[numbers].reset_index(drop=True)


def _factorize_rows(frame: pandas.DataFrame) -> tuple[Indices, pandas.DataFrame]:
    numbers = frame.groupby(list(frame.columns), sort=False).ngroup().to_numpy()
    firsts = np.unique(numbers, return_index=True)[1]
    return numbers, frame.iloc[firsts].reset_index(drop=True)


def _written(options: str) -> str:
    try:
        read = json.loads(options or "{}")
    except ValueError:
        return f"({options})"
    if not read:
        return ""
    if not isinstance(read, dict):
        return f"({options})"
    return "(" + ", ".join(f"{name}={value}" for name, value in read.items()) + ")"


def _numbered_solvers(
    labels: pandas.Series[Any], families: pandas.Series[Any]
) -> tuple[Indices, tuple[Solver, ...]]:
    import pandas

    numbers, names = pandas.factorize(labels)
    firsts = np.unique(numbers, return_index=True)[1]
    family = [str(families.iloc[first]) for first in firsts]
    rank = [FAMILIES.index(name) if name in FAMILIES else len(FAMILIES) for name in family]
    order = sorted(range(len(names)), key=lambda k: (rank[k], str(names[k])))
    place = np.argsort(order)
    return place[numbers], tuple(Solver(str(names[k]), family[k]) for k in order)
