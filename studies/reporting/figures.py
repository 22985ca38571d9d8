"""Figures described once, for whatever draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .cells import Floats, Indices


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        label: Its title.
        log: Whether it is logarithmic.
        share: Whether it is a share from 0 to 1, shown in percent.
        reverse: Whether it runs from large to small.
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
        keys: What it is chosen by, such as a tolerance; the same names in all panels of a figure.
        curves: At most one for each solver.
        x_label: Title of its x-axis, if it differs from the figure's.
        x_most: Where its x-axis ends, so that step functions run on.
        level: A height to mark, such as a target.
        note: What else is to be said of this panel.
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
        name: What its files are called.
        title: A short one.
        caption: What is seen, in a sentence or two.
        x: The horizontal axis.
        y: The vertical axis.
        shape: `"steps"`, `"lines"`, or `"markers"` for lines with a mark at each point.
        facets: Keys whose values are drawn side by side on paper; the others make files of their own.
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
    """How often each solver ended how: counts of shape `(solvers, outcomes)`."""

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
    """Problems × solvers: who solved what.

    Attributes:
        keys: What it is chosen by.
        rows: Names of the problems.
        kinds: Number of the outcome, −1 where nothing was run, −2 where outcomes of several cells differ,
            shape `(problems, solvers)`.
        shares: Share of the cells that were solved, of the same shape, NaN where nothing was run.
        texts: What to write into each cell.
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
