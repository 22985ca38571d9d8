"""Descriptions of figures, independent of how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .cells import Floats, Indices


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: Title of the axis.
        log: True for a logarithmic axis.
        share: True for a share from 0 to 1, shown in percent.
        reverse: True if it runs from large to small.
    """

    label: str
    log: bool = True
    share: bool = False
    reverse: bool = False


@dataclass(frozen=True)
class Curve:
    """The points of one solver; `solver` is its number."""

    solver: int
    x: Floats
    y: Floats


@dataclass(frozen=True)
class Panel:
    """One set of curves.

    Attributes:
        keys: Values that select it, such as a tolerance; all panels of a figure have the same names.
        curves: At most one for each solver.
        x_label: Title of its x-axis, if it differs from the figure's.
        x_most: End of its x-axis, to which step functions extend.
        level: A height to mark, such as a target.
        note: A remark on this panel.
    """

    keys: Mapping[str, str]
    curves: tuple[Curve, ...]
    x_label: str | None = None
    x_most: float | None = None
    level: float | None = None
    note: str = ""


@dataclass(frozen=True)
class CurveFigure:
    """Curves of solvers.

    Attributes:
        name: Name of its files.
        title: A short one.
        caption: Description in a sentence or two.
        x: The horizontal axis.
        y: The vertical axis.
        shape: `"steps"`, `"lines"`, or `"markers"` for lines with a mark at each point.
        facets: Keys whose values are drawn side by side; other keys have separate files.
        panels: One for each combination of keys.
    """

    name: str
    title: str
    caption: str
    x: Axis
    y: Axis
    shape: Literal["steps", "lines", "markers"]
    facets: tuple[str, ...]
    panels: tuple[Panel, ...] = ()


@dataclass(frozen=True)
class Bars:
    """Counts of the outcomes of each solver, shape `(solvers, outcomes)`."""

    keys: Mapping[str, str]
    counts: Indices


@dataclass(frozen=True)
class BarFigure:
    """Stacked bars, one for each solver; attributes as of `CurveFigure`."""

    name: str
    title: str
    caption: str
    panels: tuple[Bars, ...] = ()


@dataclass(frozen=True)
class Matrix:
    """Matrix of problems and solvers that shows solved cells.

    Attributes:
        keys: Values that select it.
        rows: Names of the problems.
        kinds: Number of the outcome, −1 if nothing was run, −2 if outcomes of several cells differ,
            shape `(problems, solvers)`.
        shares: Share of the cells that were solved, of the same shape, NaN if nothing was run.
        texts: Text of each cell.
    """

    keys: Mapping[str, str]
    rows: tuple[str, ...]
    kinds: Indices
    shares: Floats
    texts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class MatrixFigure:
    """The solved matrix; attributes as of `CurveFigure`."""

    name: str
    title: str
    caption: str
    panels: tuple[Matrix, ...]


Figure = CurveFigure | BarFigure | MatrixFigure
