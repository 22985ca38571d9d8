"""The figures of a study, described."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..profiles import (
    Steps,
    data_profile,
    evaluations_to_reach,
    outcome_counts,
    performance_profile,
    thin_trace,
    work_precision,
)
from ..row import OUTCOMES
from .cells import MEASURES, Cells, Floats, Indices, Slice
from .figures import (
    Axis,
    BarFigure,
    Bars,
    Curve,
    CurveFigure,
    Figure,
    Matrix,
    MatrixFigure,
    Panel,
)
from .styling import OUTCOME_MARKS

# What a page can hold and a reader can choose from; figures are thinned to this.
MOST_JUMPS = 150
MOST_PROBLEMS = 40
MOST_TRACE_POINTS = 60_000
MOST_MATRIX_ROWS = 80

REDUCTIONS = (1e-7, 1e-5, 1e-3, 1e-1)
ALL = "all (median)"
_LEAST_RESIDUAL = 1e-18


def figures(cells: Cells) -> tuple[Figure, ...]:
    """Every figure that these cells have something to show in."""
    made: tuple[Figure, ...] = (
        matrix(cells),
        performance(cells),
        data(cells),
        precision(cells),
        scaling(cells),
        traces(cells),
        gradients(cells),
        outcomes(cells),
    )
    return tuple(figure for figure in made if figure.panels)


def performance(cells: Cells) -> CurveFigure:
    """Performance profiles by each measure."""
    panels = []
    for name, measure in MEASURES.items():
        if not cells.measured(name):
            continue
        for part in cells.slices:
            costs, known = cells.costs(part, name)
            if len(costs) == 0:
                continue
            panels.append(
                Panel(
                    keys={"cost": measure.shown, **part.keys},
                    curves=_stepped(performance_profile(costs), start=1.0),
                    x_most=_end(costs.min(axis=1, keepdims=True), costs),
                    note=_problems_note(cells, part, known),
                )
            )
    return CurveFigure(
        name="performance",
        title="Performance profiles",
        caption="Share of all problems that a solver solves at a cost within a factor τ of the cheapest "
        "solver on that problem (Dolan & Moré 2002). At τ = 1: how often it is the cheapest; at "
        "the right: how many it solves at all. With more than two solvers only the best is ranked "
        "reliably (Gould & Scott 2016): who wins between two is in the table of pairs.",
        x=Axis("factor τ over the cheapest"),
        y=Axis("share of problems solved", log=False, share=True),
        shape="steps",
        facets=("tolerance", "arithmetic"),
        panels=tuple(panels),
    )


def data(cells: Cells) -> CurveFigure:
    """Data profiles by the reduction asked for, from the histories at the tightest tolerance."""
    panels = []
    for arithmetic in cells.arithmetics:
        part = cells.tightest(arithmetic)
        for tau in REDUCTIONS:
            needed = reached(cells, part, tau)
            if not np.isfinite(needed).any():
                continue
            dimensions = cells.dimension[part.instances]
            profiles = data_profile(needed, dimensions.astype(np.float64))
            panels.append(
                Panel(
                    keys={"reduction τ": f"{tau:g}", "arithmetic": arithmetic},
                    curves=_stepped(profiles, start=None),
                    x_most=_end(dimensions[:, None] + 1, needed),
                    note=f"From the histories at tolerance {part.tolerance}.",
                )
            )
    return CurveFigure(
        name="data",
        title="Data profiles",
        caption="Share of problems on which the residual fell to τ times that at the start within a "
        "budget of evaluations, counted in units of n + 1, the price of one Jacobian by "
        "differences (Moré & Wild 2009). Jacobian products are not counted here.",
        x=Axis("evaluations / (n + 1)"),
        y=Axis("share of problems", log=False, share=True),
        shape="steps",
        facets=("reduction τ", "arithmetic"),
        panels=tuple(panels),
    )


def precision(cells: Cells) -> CurveFigure:
    """Work–precision curves, over all problems and for each."""
    panels = []
    for arithmetic in cells.arithmetics if len(cells.tolerances) > 1 else ():
        parts = [part for part in cells.slices if part.arithmetic == arithmetic]
        common = _instances_in_all(parts)
        if len(parts) < 2 or len(common) == 0:
            continue
        solved = _stacked(cells, parts, common, "solved") == 1
        residual = np.maximum(_stacked(cells, parts, common, "residual"), _LEAST_RESIDUAL)
        problem = cells.problem[common]
        for name, measure in MEASURES.items():
            if not cells.measured(name):
                continue
            costs = _stacked(cells, parts, common, name)
            for chosen in (None, *_sampled(problem)):
                here = slice(None) if chosen is None else problem == chosen
                found = work_precision(costs[here], residual[here], solved[here])
                curves = tuple(
                    Curve(s, found.costs[s], found.errors[s])
                    for s in np.flatnonzero(found.problems).tolist()
                )
                if curves:
                    panels.append(
                        Panel(
                            keys={
                                "cost": measure.shown,
                                "problem": ALL if chosen is None else cells.problems[chosen],
                                "arithmetic": arithmetic,
                            },
                            curves=curves,
                            x_label=measure.axis,
                        )
                    )
    return CurveFigure(
        name="work-precision",
        title="Work and precision",
        caption="What accuracy costs: a point for each tolerance, at the median cost and the median "
        "residual found on rechecking, over the problems that this solver solved at every "
        "tolerance (not the same problems for each solver). Lower left is better.",
        x=Axis("cost"),
        y=Axis("residual, largest entry"),
        shape="markers",
        facets=("arithmetic",),
        panels=tuple(panels),
    )


def scaling(cells: Cells) -> CurveFigure:
    """Cost against the number of unknowns, for problems that were run in several sizes."""
    panels = []
    frame = cells.frame
    family = frame["problem"] + frame["problem_options"].map(
        {text: _short(text) for text in frame["problem_options"].unique()}
    )
    names = np.asarray(family, dtype=object)
    sizes = frame.groupby(names)["dimension"].nunique()
    several = sizes.index[sizes > 1][:MOST_PROBLEMS]
    for name, measure in MEASURES.items() if len(several) else ():
        if not cells.measured(name):
            continue
        for part in cells.slices:
            first_rows = part.index.max(axis=1)
            owner = names[first_rows]
            costs = np.where(cells.solved(part), cells.values(part, name), np.nan)
            for chosen in several:
                here = np.flatnonzero(owner == chosen)
                curves = _by_size(costs[here], cells.dimension[part.instances[here]])
                if curves:
                    panels.append(
                        Panel(
                            keys={"problem": str(chosen), "cost": measure.shown, **part.keys},
                            curves=curves,
                        )
                    )
    return CurveFigure(
        name="scaling",
        title="Cost by size",
        caption="Median cost of the solved cells against the number of unknowns. A line that stops was "
        "not solved beyond.",
        x=Axis("unknowns n"),
        y=Axis("cost"),
        shape="markers",
        facets=("problem",),
        panels=tuple(panels),
    )


def traces(cells: Cells) -> CurveFigure:
    """Residual against evaluations, at the tightest tolerance."""
    panels = []
    for arithmetic in cells.arithmetics:
        part = cells.tightest(arithmetic)
        firsts = _first_instances(cells, part)
        count = max(1, len(firsts) * len(cells.solvers) * len(cells.arithmetics))
        most = int(np.clip(MOST_TRACE_POINTS // count, 8, 60))
        for problem, place in firsts:
            curves = tuple(_trace_curves(cells, part.index[place], most))
            if not curves:
                continue
            target = cells.values(part, "target")[place]
            known = target[np.isfinite(target)]
            panels.append(
                Panel(
                    keys={"problem": cells.problems[problem], "arithmetic": arithmetic},
                    curves=curves,
                    level=float(known.max()) if len(known) and known.max() > 0 else None,
                    note=f"At tolerance {part.tolerance}.",
                )
            )
    return CurveFigure(
        name="traces",
        title="Convergence",
        caption="The smallest residual so far against evaluations of the equation's function; Jacobian "
        "products are not counted. The dashed level is the target.",
        x=Axis("evaluations"),
        y=Axis("residual, largest entry"),
        shape="lines",
        facets=("problem",),
        panels=tuple(panels),
    )


def gradients(cells: Cells) -> CurveFigure:
    """Error of gradients against the tolerance of the solve."""
    panels = []
    error = cells.column("gradient_error")
    for arithmetic in cells.arithmetics if np.isfinite(error).any() else ():
        parts = [part for part in cells.slices if part.arithmetic == arithmetic]
        tolerances = np.array([float(part.tolerance) for part in parts])
        everywhere = np.unique(np.concatenate([cells.problem[part.instances] for part in parts]))
        for chosen in (None, *_sampled(everywhere)):
            heights = np.full((len(parts), len(cells.solvers)), np.nan)
            for k, part in enumerate(parts):
                here = slice(None) if chosen is None else cells.problem[part.instances] == chosen
                heights[k] = median_of_known(cells.values(part, "gradient_error")[here])
            curves = _known_points(tolerances, np.maximum(heights, _LEAST_RESIDUAL))
            if curves:
                panels.append(
                    Panel(
                        keys={
                            "problem": ALL if chosen is None else cells.problems[chosen],
                            "arithmetic": arithmetic,
                        },
                        curves=curves,
                    )
                )
    return CurveFigure(
        name="gradient-error",
        title="Gradient error and tolerance",
        caption="Median distance of the gradient from the dense implicit gradient, relative to its "
        "length, against the tolerance of the forward solve. Exact modes fall with the tolerance; "
        "what levels off is the error of an approximation.",
        x=Axis("tolerance", reverse=True),
        y=Axis("relative error of the gradient"),
        shape="markers",
        facets=("arithmetic",),
        panels=tuple(panels),
    )


def outcomes(cells: Cells) -> BarFigure:
    """How the cells of each solver ended."""
    panels = []
    for part in cells.slices:
        rows = part.index[part.index >= 0]
        owner = np.nonzero(part.index >= 0)[1]
        counts = outcome_counts(cells.outcome[rows], owner, len(OUTCOMES), len(cells.solvers))
        panels.append(Bars(part.keys, counts))
    return BarFigure(
        name="outcomes",
        title="How cells ended",
        caption="Solved means that the residual, evaluated anew, meets the target. A false success is one "
        "that the solver claimed and the recheck denies.",
        panels=tuple(panels),
    )


def matrix(cells: Cells) -> MatrixFigure:
    """Who solved what."""
    grouping, names, words = _matrix_rows(cells)
    return MatrixFigure(
        name="solved",
        title="Who solved what",
        caption="Median evaluations where solved; "
        + ", ".join(f"{mark} {name}" for name, mark in OUTCOME_MARKS.items() if name != "solved")
        + ", nothing where it was not run. "
        + words,
        panels=tuple(_matrix_of(cells, part, grouping, names) for part in cells.slices),
    )


def reached(cells: Cells, part: Slice, tau: float) -> Floats:
    """Evaluations at which each cell's residual had fallen to `tau` of that at the start, `inf` if never."""
    rows = part.index[part.index >= 0]
    evaluations = _lists(cells, "history_evaluations", rows)
    residuals = _lists(cells, "history_residual", rows)
    lengths = np.array([len(history) for history in residuals])
    needed = evaluations_to_reach(
        np.concatenate(evaluations) if evaluations else np.empty(0),
        np.concatenate(residuals) if residuals else np.empty(0),
        lengths,
        cells.column("residual_start")[rows],
        tau,
    )
    found = np.full(part.index.shape, np.inf)
    found[part.index >= 0] = np.maximum(needed, 1)
    return found


def median_of_known(values: Floats) -> Floats:
    """Median of each column, NaN left out, NaN where nothing is left."""
    found = np.full(values.shape[1], np.nan)
    known = np.isfinite(values)
    for s in np.flatnonzero(known.any(axis=0)):
        found[s] = np.median(values[known[:, s], s])
    return found


def compact(number: float) -> str:
    """A count in at most four characters.

    Examples:
        >>> compact(12), compact(1234), compact(56789)
        ('12', '1.2k', '57k')
    """
    if number < 1000:
        return f"{number:.0f}"
    for unit in ("k", "M"):
        number /= 1000
        if number < 999.5:
            return f"{number:.1f}{unit}" if number < 9.95 else f"{number:.0f}{unit}"
    return f"{number:.0e}"


def _lists(cells: Cells, name: str, rows: Indices) -> list[Floats]:
    column = cells.frame[name].to_numpy()
    empty = np.empty(0)
    return [
        empty if column[row] is None else np.asarray(column[row], dtype=np.float64) for row in rows
    ]


def _stepped(profiles: Sequence[Steps], start: float | None) -> tuple[Curve, ...]:
    """Profiles as curves; those that never rise are left out."""
    curves = []
    for solver, profile in enumerate(profiles):
        if profile.limit == 0:
            continue
        steps = profile.thinned(MOST_JUMPS)
        x, y = steps.jumps, steps.shares
        first = x[0] if start is None else start
        curves.append(Curve(solver, np.append(first, x), np.append(0.0, y)))
    return tuple(curves)


def _end(unit: Floats | Indices, costs: Floats) -> float:
    """A little beyond the last jump."""
    with np.errstate(invalid="ignore"):
        scaled = costs / unit
    largest = scaled[np.isfinite(scaled)].max(initial=1.0)
    return float(max(largest * 1.15, 2.0))


def _problems_note(cells: Cells, part: Slice, known: NDArray[np.bool_]) -> str:
    note = f"{int(known.sum())} problems."
    if not known.all():
        note += f" {int((~known).sum())} are left out, since this cost was not measured on them."
    missing = (part.index < 0).any(axis=0)
    if missing.any():
        note += f" {int(missing.sum())} solvers were not run on all: there they count as failing."
    return note


def _instances_in_all(parts: Sequence[Slice]) -> Indices:
    common = parts[0].instances
    for part in parts[1:]:
        common = np.intersect1d(common, part.instances)
    return common


def _stacked(cells: Cells, parts: Sequence[Slice], common: Indices, name: str) -> Floats:
    """A column, shape `(instances, solvers, tolerances)`."""
    layers = []
    for part in parts:
        values = cells.solved(part) if name == "solved" else cells.values(part, name)
        layers.append(values[np.searchsorted(part.instances, common)])
    return np.stack(layers, axis=2).astype(np.float64)


def _sampled(problems: Indices) -> list[int]:
    """At most `MOST_PROBLEMS` of them, evenly over their order."""
    distinct = np.unique(problems)
    if len(distinct) > MOST_PROBLEMS:
        places = np.linspace(0, len(distinct) - 1, MOST_PROBLEMS).round().astype(int)
        distinct = distinct[places]
    return [int(problem) for problem in distinct]


def _first_instances(cells: Cells, part: Slice) -> list[tuple[int, int]]:
    """Problems to choose from, with the place on the slice of the first instance of each."""
    owner = cells.problem[part.instances]
    return [(problem, int(np.argmax(owner == problem))) for problem in _sampled(owner)]


def _trace_curves(cells: Cells, rows: Indices, most: int) -> Iterator[Curve]:
    present = np.flatnonzero(rows >= 0)
    evaluations = _lists(cells, "history_evaluations", rows[present])
    residuals = _lists(cells, "history_residual", rows[present])
    for solver, x, y in zip(present.tolist(), evaluations, residuals, strict=True):
        finite = np.isfinite(y)
        if not finite.any():
            continue
        x, y = thin_trace(x[finite], np.maximum(y[finite], _LEAST_RESIDUAL), most)
        yield Curve(solver, x, y)


def _short(options: str) -> str:
    return "" if options in ("", "{}") else f" {options}"


def _by_size(costs: Floats, sizes: Indices) -> tuple[Curve, ...]:
    distinct = np.unique(sizes)
    if len(distinct) < 2:
        return ()
    heights = np.array([median_of_known(costs[sizes == size]) for size in distinct])
    return _known_points(distinct.astype(np.float64), heights)


def _known_points(x: Floats, heights: Floats) -> tuple[Curve, ...]:
    """A curve for each solver, a column of `heights` over `x`, of the points that are known."""
    return tuple(
        Curve(s, x[known], heights[known, s])
        for s in range(heights.shape[1])
        if (known := np.isfinite(heights[:, s])).any()
    )


def _matrix_rows(cells: Cells) -> tuple[Indices, tuple[str, ...], str]:
    """The row of each problem, the names of rows, and what is to be said of them."""
    numbers = np.arange(len(cells.problems))
    if len(cells.problems) <= MOST_MATRIX_ROWS:
        seeds = len(cells.problem) > len(cells.problems)
        words = "Fractions are cells solved of those run with several seeds." if seeds else ""
        return numbers, cells.problems, words
    name_of = dict(zip(_row_problems(cells), cells.frame["problem"], strict=True))
    names, grouping = np.unique(
        np.array([str(name_of[k]) for k in numbers.tolist()]), return_inverse=True
    )
    said = "Fractions are cells solved of those run; a row is all cells of the problem of that name"
    if len(names) <= MOST_MATRIX_ROWS:
        return grouping, tuple(map(str, names)), said + "."
    tag_of = {
        problem: (tags[0] if tags is not None and len(tags) else "without a tag")
        for problem, tags in zip(_row_problems(cells), cells.frame["tags"], strict=True)
    }
    names, grouping = np.unique(
        np.array([str(tag_of[k]) for k in numbers.tolist()]), return_inverse=True
    )
    return (
        grouping,
        tuple(map(str, names)),
        said.replace("the problem of that name", "problems of that tag") + ".",
    )


def _row_problems(cells: Cells) -> list[int]:
    """Number of the problem of each row of the frame."""
    found = np.full(len(cells.frame), -1)
    for part in cells.slices:
        owner = np.broadcast_to(cells.problem[part.instances][:, None], part.index.shape)
        found[part.index[part.index >= 0]] = owner[part.index >= 0]
    return [int(problem) for problem in found]


def _matrix_of(cells: Cells, part: Slice, grouping: Indices, names: tuple[str, ...]) -> Matrix:
    rows = grouping[cells.problem[part.instances]]
    kinds = cells.outcomes(part)
    solved = cells.solved(part)
    evaluations = np.where(solved, cells.values(part, "evaluations"), np.nan)
    shape = (len(names), len(cells.solvers))
    found_kinds, shares = np.full(shape, -1), np.full(shape, np.nan)
    texts = []
    for row in range(len(names)):
        here = rows == row
        run = (kinds[here] >= 0).sum(axis=0)
        hits = solved[here].sum(axis=0)
        medians = median_of_known(evaluations[here])
        line = []
        for s in range(shape[1]):
            if run[s] == 0:
                line.append("")
                continue
            seen = kinds[here, s]
            seen = seen[seen >= 0]
            shares[row, s] = hits[s] / run[s]
            found_kinds[row, s] = seen[0] if (seen == seen[0]).all() else -2
            if hits[s] not in (0, run[s]):
                line.append(f"{hits[s]}/{run[s]}")
            elif hits[s]:
                line.append(compact(medians[s]) if np.isfinite(medians[s]) else "✓")
            else:
                line.append("".join(OUTCOME_MARKS[OUTCOMES[k]] for k in np.unique(seen)))
        texts.append(tuple(line))
    kept = np.array([(rows == row).any() for row in range(len(names))])
    return Matrix(
        keys=part.keys,
        rows=tuple(name for name, keep in zip(names, kept, strict=True) if keep),
        kinds=found_kinds[kept],
        shares=shares[kept],
        texts=tuple(line for line, keep in zip(texts, kept, strict=True) if keep),
    )
