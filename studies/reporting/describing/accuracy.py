"""Accuracy: residuals against their cost, and errors of gradients against the tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ... import profiles
from ..cells import Cells, Floats, Indices, Slice
from ..figures import Axis, Curve, CurveFigure, Panel
from .curves import LEAST_SHOWN, known_points, median_of_known, sampled

WORK_PRECISION = CurveFigure(
    name="work-precision",
    title="Work and precision",
    caption="What accuracy costs: a point for each tolerance, at the median cost and the median "
    "residual found on rechecking, over the problems that this solver solved at every "
    "tolerance (not the same problems for each solver). Lower left is better.",
    x=Axis("cost"),
    y=Axis("residual, largest entry"),
    shape="markers",
    facets=("arithmetic",),
)
GRADIENT_ERROR = CurveFigure(
    name="gradient-error",
    title="Gradient error and tolerance",
    caption="Median distance of the gradient from the dense implicit gradient, relative to its "
    "length, against the tolerance of the forward solve. Exact modes fall with the tolerance; "
    "what levels off is the error of an approximation.",
    x=Axis("tolerance", reverse=True),
    y=Axis("relative error of the gradient"),
    shape="markers",
    facets=("arithmetic",),
)
_ALL_PROBLEMS = "all (median)"


def work_precision(cells: Cells) -> Iterator[Panel]:
    """Residuals against costs, over all problems and for each."""
    for arithmetic in cells.arithmetics if len(cells.tolerances) > 1 else ():
        parts = cells.by_tolerance(arithmetic)
        common = _instances_in_all(parts)
        if len(parts) < 2 or len(common) == 0:
            continue
        solved = _stacked(cells, parts, common, "solved") == 1
        residual = np.maximum(_stacked(cells, parts, common, "residual"), LEAST_SHOWN)
        problem = cells.problem[common]
        for name, measure in cells.measures.items():
            costs = _stacked(cells, parts, common, name)
            for chosen, keys in _choices(cells, problem, arithmetic):
                here = _rows_of(chosen, problem)
                found = profiles.work_precision(costs[here], residual[here], solved[here])
                curves = tuple(
                    Curve(s, found.costs[s], found.errors[s])
                    for s in np.flatnonzero(found.problems).tolist()
                )
                if curves:
                    yield Panel({"cost": measure.shown, **keys}, curves, x_label=measure.axis)


def gradient_error(cells: Cells) -> Iterator[Panel]:
    """Errors of gradients against tolerances, over all problems and for each."""
    known = np.isfinite(cells.column("gradient_error")).any()
    for arithmetic in cells.arithmetics if known else ():
        parts = cells.by_tolerance(arithmetic)
        problems = [cells.problem[part.instances] for part in parts]
        errors = [cells.values(part, "gradient_error") for part in parts]
        tolerances = np.array([float(part.tolerance) for part in parts])
        for chosen, keys in _choices(cells, np.concatenate(problems), arithmetic):
            heights = np.array(
                [
                    median_of_known(values[_rows_of(chosen, problem)])
                    for values, problem in zip(errors, problems, strict=True)
                ]
            )
            curves = known_points(tolerances, np.maximum(heights, LEAST_SHOWN))
            if curves:
                yield Panel(keys, curves)


def _choices(
    cells: Cells, problem: Indices, arithmetic: str
) -> Iterator[tuple[int | None, dict[str, str]]]:
    """All problems together, then each by itself, with the keys of its panel."""
    for chosen in (None, *sampled(problem)):
        name = _ALL_PROBLEMS if chosen is None else cells.problems[chosen]
        yield chosen, {"problem": name, "arithmetic": arithmetic}


def _rows_of(chosen: int | None, problem: Indices) -> slice | NDArray[np.bool_]:
    return slice(None) if chosen is None else problem == chosen


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
