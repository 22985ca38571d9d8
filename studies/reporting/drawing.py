"""Drawing of described figures with matplotlib."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from ..row import OUTCOMES
from .cells import MEASURES, Cells, Floats
from .figures import BarFigure, CurveFigure, Figure, Matrix, MatrixFigure, Panel
from .styling import COLOURS, DASHES, FAMILY_NAMES, MARKERS, OUTCOME_COLOURS

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.axis
    import matplotlib.figure

MOST_PANELS = 12
_COLUMNS = 3
_LINES: dict[str, Any] = {
    "solid": "-",
    "dash": (0, (5, 2.5)),
    "dot": (0, (1.2, 1.6)),
    "dashdot": "-.",
}
_POINTS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "cross": "P",
    "x": "X",
    "triangle-down": "v",
}
_GREY = "#c4c9cf"
_LONGEST_NAME = 46


@contextmanager
def house_style() -> Iterator[None]:
    """Style of all figures, with files that do not change with the date."""
    import matplotlib.style

    style = resources.files(__package__).joinpath("implicitly.mplstyle")
    fixed = {"svg.hashsalt": "implicitly", "axes.unicode_minus": True, "text.usetex": False}
    with resources.as_file(style) as path, matplotlib.style.context([str(path), fixed]):
        yield


def drawn(
    figure: Figure, cells: Cells, highlighted: Sequence[int]
) -> Iterator[tuple[str, matplotlib.figure.Figure]]:
    """Draw a figure as one or several files.

    Args:
        figure: The figure.
        cells: Cells, for names and families.
        highlighted: Solvers in colour.

    Yields:
        The name of each file and its drawing. Call within `house_style`, saving included.
    """
    if isinstance(figure, CurveFigure):
        for name, panels in _files(figure):
            yield name, _curves(figure, panels, cells, highlighted)
    elif isinstance(figure, BarFigure):
        for bars in figure.panels:
            yield _file(figure.name, bars.keys), _bars(figure, bars.counts, bars.keys, cells)
    else:
        for matrix in figure.panels:
            yield _file(figure.name, matrix.keys), _matrix(figure, matrix, cells)


def _files(figure: CurveFigure) -> Iterator[tuple[str, list[Panel]]]:
    """Panels of each file: those that differ in facets only."""

    def rest(panel: Panel) -> tuple[tuple[str, str], ...]:
        return tuple(item for item in panel.keys.items() if item[0] not in figure.facets)

    groups: dict[tuple[tuple[str, str], ...], list[Panel]] = {}
    for panel in figure.panels:
        groups.setdefault(rest(panel), []).append(panel)
    varying = _varying([dict(keys) for keys in groups])
    for keys, panels in groups.items():
        chosen = dict(keys)
        # Files over all problems are enough; one for each problem would be too many.
        if "problem" in chosen and not chosen["problem"].startswith("all"):
            continue
        shown = {name: value for name, value in chosen.items() if name in varying - {"problem"}}
        yield _file(figure.name, shown), panels[:MOST_PANELS]


def _varying(groups: list[dict[str, str]]) -> set[str]:
    names = groups[0] if groups else {}
    return {name for name in names if len({group[name] for group in groups}) > 1}


def _file(name: str, keys: Mapping[str, str]) -> str:
    short = {measure.shown: key for key, measure in MEASURES.items()}
    kept = "-".join([name, *(short.get(value, value) for value in keys.values())]).lower()
    return "".join(
        sign if sign.isascii() and (sign.isalnum() or sign in ".-") else "-" for sign in kept
    )


def _curves(
    figure: CurveFigure, panels: list[Panel], cells: Cells, highlighted: Sequence[int]
) -> matplotlib.figure.Figure:
    from matplotlib.figure import Figure as Paper

    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    width, height = (3.2 * columns, 2.7 * lines) if columns > 1 else (5.2, 3.6)
    paper = Paper(figsize=(width, height + 0.9), layout="constrained")
    axes = paper.subplots(lines, columns, squeeze=False)
    varying = _varying([dict(panel.keys) for panel in panels])
    for place, panel in zip(axes.flat, panels, strict=False):
        _panel(figure, panel, place, cells, highlighted)
        titles = {name: value for name, value in panel.keys.items() if name in varying}
        place.set_title(_words(titles) or figure.title)
    for place in list(axes.flat)[len(panels) :]:
        place.set_visible(False)
    for line, column in itertools.product(range(lines), range(columns)):
        place = axes[line, column]
        if column == 0:
            place.set_ylabel(figure.y.label)
        if line == lines - 1 or line * columns + column + columns >= len(panels):
            place.set_xlabel(panels[0].x_label or figure.x.label)
    _legend(paper, panels, cells, highlighted)
    return paper


def _panel(
    figure: CurveFigure,
    panel: Panel,
    place: matplotlib.axes.Axes,
    cells: Cells,
    highlighted: Sequence[int],
) -> None:
    for curve in sorted(panel.curves, key=lambda curve: curve.solver in highlighted):
        x, y = curve.x, curve.y
        if figure.shape == "steps" and panel.x_most is not None and x[-1] < panel.x_most:
            x, y = np.append(x, panel.x_most), np.append(y, y[-1])
        look = _look(cells, curve.solver, highlighted)
        if figure.shape == "markers" and curve.solver not in highlighted:
            look |= {"marker": ".", "markersize": 3}
        elif figure.shape != "markers" and len(x) > 8:
            look["markevery"] = max(1, len(x) // 6)
        style = "steps-post" if figure.shape == "steps" else "default"
        place.plot(x, y, drawstyle=style, **look)
    if figure.x.log:
        place.set_xscale("log")
        _label_within_decades(place.xaxis, np.concatenate([curve.x for curve in panel.curves]))
    if figure.y.log:
        place.set_yscale("log")
        _label_within_decades(place.yaxis, np.concatenate([curve.y for curve in panel.curves]))
    if figure.x.reverse:
        place.invert_xaxis()
    if figure.y.share:
        place.set_ylim(-0.02, 1.03)
        place.yaxis.set_major_formatter("{x:.0%}")
    if figure.shape == "steps" and panel.x_most is not None:
        least = min(float(curve.x[curve.x > 0].min()) for curve in panel.curves)
        place.set_xlim(least, panel.x_most)
        _label_within_decades(place.xaxis, np.array([least, panel.x_most]))
    if panel.level is not None:
        place.axhline(panel.level, color="#57606a", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)


def _label_within_decades(axis: matplotlib.axis.Axis, values: Floats) -> None:
    """Numbers on a logarithmic axis of less than two decades, where powers of ten are too few."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    shown = values[values > 0]
    if len(shown) == 0 or shown.max() >= 100 * shown.min():
        return
    wide = shown.max() > 6 * shown.min()
    axis.set_major_locator(
        LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6, steps=[1, 2, 5, 10])
    )
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def _look(cells: Cells, solver: int, highlighted: Sequence[int]) -> dict[str, Any]:
    line = _LINES[DASHES.get(cells.solvers[solver].family, "solid")]
    if solver not in highlighted:
        return {"color": _GREY, "linewidth": 0.7, "linestyle": line, "zorder": 1.5}
    slot = list(highlighted).index(solver)
    return {
        "color": COLOURS[slot % len(COLOURS)],
        # Of lines that coincide, each shows beside the next, which lies above it.
        "linewidth": 2.6 - 1.4 * slot / max(1, len(highlighted) - 1),
        "linestyle": line,
        "marker": _POINTS[MARKERS[slot % len(MARKERS)]],
        "zorder": 3 + slot,
    }


def _legend(
    paper: matplotlib.figure.Figure,
    panels: list[Panel],
    cells: Cells,
    highlighted: Sequence[int],
) -> None:
    from matplotlib.lines import Line2D

    present = {curve.solver for panel in panels for curve in panel.curves}
    handles = [
        Line2D([], [], label=_cut(cells.solvers[s].name), **_look(cells, s, highlighted))
        for s in highlighted
        if s in present
    ]
    rest = [cells.solvers[s].family for s in sorted(present - set(highlighted))]
    for family in dict.fromkeys(rest):
        line = _LINES[DASHES.get(family, "solid")]
        others = rest.count(family)
        words = f"{others} other{'s' * (others > 1)}, {FAMILY_NAMES.get(family, family)}"
        handles.append(Line2D([], [], label=words, color=_GREY, linewidth=1, linestyle=line))
    wide = paper.get_figwidth() > 6
    paper.legend(handles=handles, loc="outside lower left", ncols=2 if wide else 1, handlelength=3)


def _bars(
    figure: BarFigure, counts: Any, keys: Mapping[str, str], cells: Cells
) -> matplotlib.figure.Figure:
    from matplotlib.figure import Figure as Paper

    shown = [s for s in range(len(cells.solvers)) if counts[s].any()]
    paper = Paper(figsize=(7.2, 0.19 * len(shown) + 1.3), layout="constrained")
    place = paper.subplots()
    left = np.zeros(len(shown))
    for k, outcome in enumerate(OUTCOMES):
        widths = counts[shown, k]
        if widths.any():
            place.barh(
                range(len(shown)),
                widths,
                left=left,
                height=0.78,
                color=OUTCOME_COLOURS[outcome],
                label=outcome,
            )
            left = left + widths
    place.set_yticks(range(len(shown)), [_cut(cells.solvers[s].name) for s in shown], fontsize=7)
    place.set_ylim(len(shown) - 0.4, -0.6)
    place.grid(axis="y", visible=False)
    place.set_xlabel("cells")
    place.set_title(f"{figure.title}: {_words(keys)}")
    paper.legend(loc="outside lower left", ncols=7)
    return paper


def _matrix(figure: MatrixFigure, matrix: Matrix, cells: Cells) -> matplotlib.figure.Figure:
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure as Paper

    lines, columns = matrix.kinds.shape
    paper = Paper(figsize=(0.31 * columns + 2.4, 0.21 * lines + 2.9), layout="constrained")
    place = paper.subplots()
    colours = np.ones((lines, columns, 3))
    tints = np.array([_tint(to_rgb(OUTCOME_COLOURS[name]), 0.45) for name in OUTCOMES])
    known = matrix.kinds >= 0
    colours[known] = tints[matrix.kinds[known]]
    mixed = matrix.kinds == -2
    shares = matrix.shares[mixed][:, None]
    colours[mixed] = shares * tints[0] + (1 - shares) * tints[1]
    place.imshow(colours, aspect="auto", interpolation="nearest")
    for row, line in enumerate(matrix.texts):
        for column, text in enumerate(line):
            place.text(column, row, text, ha="center", va="center", fontsize=6)
    names = [_cut(solver.name) for solver in cells.solvers]
    place.set_xticks(range(columns), names, rotation=90, fontsize=6.5)
    place.set_yticks(range(lines), [_cut(name) for name in matrix.rows], fontsize=6.5)
    place.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    place.set_yticks(np.arange(lines + 1) - 0.5, minor=True)
    place.grid(visible=False)
    place.grid(which="minor", color="white", linewidth=1)
    place.tick_params(which="both", length=0)
    place.spines[:].set_visible(False)
    place.set_title(f"{figure.title}: {_words(matrix.keys)}")
    return paper


def _tint(colour: tuple[float, float, float], strength: float) -> tuple[float, ...]:
    return tuple(1 - strength * (1 - part) for part in colour)


def _words(keys: Mapping[str, str]) -> str:
    named = ("tolerance", "reduction τ")
    return _no_mathematics(
        ", ".join(f"{key} {value}" if key in named else value for key, value in keys.items())
    )


def _cut(name: str) -> str:
    """A name of a limited length."""
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    return _no_mathematics(short)


def _no_mathematics(text: str) -> str:
    """Text in which Matplotlib takes dollar signs as they are."""
    return text.replace("$", r"\$")
