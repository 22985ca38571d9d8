"""Page of a report: one HTML file with data, scripts and style, which opens without a network."""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template
from typing import Any

from ..row import OUTCOMES
from .cells import Cells, Floats
from .figures import Axis, BarFigure, Bars, CurveFigure, Figure, Matrix, Panel
from .styling import (
    COLOURS,
    DARK_COLOURS,
    DARK_OUTCOME_COLOURS,
    DASHES,
    FAMILY_NAMES,
    MARKERS,
    OUTCOME_COLOURS,
    OUTCOME_MARKS,
)
from .tables import Bounded, Kind, Table, Value, shown


@dataclass(frozen=True)
class Words:
    """Texts of a page beside its figures and tables.

    Attributes:
        title: Its heading.
        subtitle: A line below.
        configuration: The exact text of the study's configuration; empty if unknown.
        environment: Names and values.
        command: The command that reproduces these results.
        foot: The last line.
    """

    title: str
    subtitle: str
    configuration: str
    environment: tuple[tuple[str, str], ...]
    command: str
    foot: str


def page(
    cells: Cells,
    words: Words,
    highlighted: Sequence[int],
    figures: Sequence[Figure],
    tables: Sequence[Table],
    headlines: Sequence[tuple[Mapping[str, str], Sequence[str]]],
) -> str:
    """The whole page."""
    filters = {"tolerance": cells.tolerances, "arithmetic": cells.arithmetics}
    data = {
        "title": words.title,
        "subtitle": words.subtitle,
        "filters": filters,
        "chosen": {"tolerance": cells.tolerances[-1], "arithmetic": cells.arithmetics[0]},
        "solvers": [{"name": solver.name, "family": solver.family} for solver in cells.solvers],
        "highlighted": list(highlighted),
        "colours": {"light": COLOURS, "dark": DARK_COLOURS},
        "markers": MARKERS,
        "dashes": DASHES,
        "families": FAMILY_NAMES,
        "outcomes": [
            {
                "name": name,
                "mark": OUTCOME_MARKS[name],
                "light": OUTCOME_COLOURS[name],
                "dark": DARK_OUTCOME_COLOURS[name],
            }
            for name in OUTCOMES
        ],
        "headlines": [{"keys": dict(keys), "said": list(said)} for keys, said in headlines],
        "figures": [_figure(figure) for figure in figures],
        "tables": [_table(table) for table in tables if table.name != "solved"],
        "configuration": words.configuration,
        "environment": words.environment,
        "reproduce": {
            "words": "The same rows, from the same configuration; cells that have ended are not run again.",
            "command": words.command,
        },
        "foot": words.foot,
    }
    return Template(_part("page.html")).substitute(
        title=html.escape(words.title),
        style=_part("page.css"),
        data=embedded(data),
        library=_library(),
        script=_part("page.js"),
    )


def embedded(data: Any) -> str:
    r"""JSON that is safe within a script element, whatever text it holds.

    Examples:
        >>> embedded({"text": "</script>"})
        '{"text":"\\u003c/script>"}'
    """
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign in ("<", "\u2028", "\u2029"):
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def _library() -> str:
    """Plotly's script, compressed to 2 MB from 5."""
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode("utf-8"), mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _figure(figure: Figure) -> dict[str, Any]:
    common = {"name": figure.name, "title": figure.title, "caption": figure.caption}
    if isinstance(figure, CurveFigure):
        return {
            **common,
            "kind": "curves",
            "shape": figure.shape,
            "x": _axis(figure.x),
            "y": _axis(figure.y),
            "panels": [_panel(panel) for panel in figure.panels],
        }
    if isinstance(figure, BarFigure):
        return {**common, "kind": "bars", "panels": [_bars(panel) for panel in figure.panels]}
    return {**common, "kind": "matrix", "panels": [_matrix(panel) for panel in figure.panels]}


def _axis(axis: Axis) -> dict[str, Any]:
    return {"label": axis.label, "log": axis.log, "share": axis.share, "reverse": axis.reverse}


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "keys": dict(panel.keys),
        "curves": [
            {"s": curve.solver, "x": _rounded(curve.x), "y": _rounded(curve.y)}
            for curve in panel.curves
        ],
        "x_label": panel.x_label,
        "x_most": panel.x_most,
        "level": panel.level,
        "note": panel.note,
    }


def _bars(panel: Bars) -> dict[str, Any]:
    return {"keys": dict(panel.keys), "counts": panel.counts.tolist()}


def _matrix(panel: Matrix) -> dict[str, Any]:
    shares = [
        [0 if math.isnan(share) else round(share, 3) for share in row]
        for row in panel.shares.tolist()
    ]
    return {
        "keys": dict(panel.keys),
        "rows": panel.rows,
        "kinds": panel.kinds.tolist(),
        "shares": shares,
        "texts": panel.texts,
    }


def _table(table: Table) -> dict[str, Any]:
    kinds: list[Kind] = [column.kind for column in table.columns]
    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "columns": [{"header": column.header, "kind": column.kind} for column in table.columns],
        "groups": [
            {
                "keys": dict(group.keys),
                "rows": [
                    [shown(value, kind) for value, kind in zip(row, kinds, strict=True)]
                    for row in group.rows
                ],
                "sort": [[_sortable(value) for value in row] for row in group.rows],
            }
            for group in table.groups
        ],
    }


def _sortable(value: Value) -> str | float | None:
    if isinstance(value, Bounded):
        value = value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _rounded(values: Floats) -> list[float]:
    """Values rounded to four digits, more than a screen shows."""
    return [float(f"{value:.4g}") for value in values.tolist()]
