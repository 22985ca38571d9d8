"""Descriptions of tables, and their Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["text", "code", "count", "number", "share", "mark"]


class Bounded(NamedTuple):
    """A value with the bounds of its interval; NaN for no bounds."""

    value: float
    low: float
    high: float


Value = str | int | float | Bounded | None


@dataclass(frozen=True)
class Column:
    """Header of a column and kind of its values."""

    header: str
    kind: Kind


@dataclass(frozen=True)
class Group:
    """Rows that belong together, such as those of one tolerance."""

    keys: Mapping[str, str]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table, in one group or several with the same columns.

    Attributes:
        name: Name of its files.
        title: A short one.
        caption: Description.
        columns: One for each entry of a row.
        groups: The rows.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]


def shown(value: Value, kind: Kind) -> str:
    """A value as text for readers.

    Examples:
        >>> shown(Bounded(0.9, 0.75, 1.0), "share"), shown(1234.5678, "number"), shown(None, "number")
        ('90% (75 to 100)', '1235', '')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, Bounded):
        if math.isnan(value.value):
            return ""
        middle = shown(value.value, kind)
        if math.isnan(value.low) or math.isnan(value.high):
            return middle
        low, high = shown(value.low, kind), shown(value.high, kind)
        return f"{middle} ({low.removesuffix('%')} to {high.removesuffix('%')})"
    if isinstance(value, str):
        return value
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if kind == "share":
        return f"{100 * value:.0f}%"
    if kind == "count":
        return f"{value:.0f}"
    return _number(value)


def _number(value: float) -> str:
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def markdown(table: Table) -> str:
    r"""The table in Markdown, a heading for each group.

    Examples:
        >>> table = Table("t", "T", "", (Column("a", "text"),), (Group({}, (("x|y",),)),))
        >>> print(markdown(table))
        # T
        <BLANKLINE>
        | a |
        |---|
        | x\|y |
        <BLANKLINE>
    """
    lines = [f"# {table.title}", ""]
    if table.caption:
        lines += [_markdown_text(table.caption), ""]
    for group in table.groups:
        if group.keys:
            lines += [f"## {_words(group.keys)}", ""]
        lines.append("| " + " | ".join(_markdown_text(c.header) for c in table.columns) + " |")
        lines.append("|" + "|".join("---" if _is_text(c) else "--:" for c in table.columns) + "|")
        for row in group.rows:
            lines.append("| " + " | ".join(_markdown_cells(row, table.columns)) + " |")
        lines.append("")
    return "\n".join(lines)


def latex(table: Table) -> str:
    r"""The table in LaTeX with booktabs, a tabular for each group; wide headers stand upright.

    Examples:
        >>> table = Table("t", "T", "", (Column("a_b", "text"),), (Group({}, (("50%",),)),))
        >>> r"a\_b" in latex(table) and r"50\%" in latex(table)
        True
    """
    upright = len(table.columns) > 12
    needs = "booktabs and graphicx" if upright else "booktabs"
    lines = [f"% {table.title}. Needs the packages {needs}."]
    for group in table.groups:
        lines += ["\\begin{table}", "  \\centering"]
        title = table.title + (f", {_words(group.keys)}" if group.keys else "")
        lines.append(f"  \\caption{{{_latex_text(title)}. {_latex_text(table.caption)}}}")
        lines.append(
            "  \\begin{tabular}{"
            + "".join("l" if _is_text(c) else "r" for c in table.columns)
            + "}"
        )
        lines.append("    \\toprule")
        headers = [_latex_text(column.header) for column in table.columns]
        if upright:
            headers = [headers[0], *(f"\\rotatebox{{90}}{{{header}}}" for header in headers[1:])]
        lines += ["    " + " & ".join(headers) + r" \\", "    \\midrule"]
        for row in group.rows:
            written = [
                f"\\texttt{{{_latex_text(text)}}}"
                if column.kind == "code" and text
                else _latex_text(text)
                for text, column in zip(_texts(row, table.columns), table.columns, strict=True)
            ]
            lines.append("    " + " & ".join(written) + r" \\")
        lines += ["    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""]
    return "\n".join(lines)


def comma_separated(table: Table) -> str:
    """The table in CSV: keys as columns, numbers in full, intervals as three columns.

    Examples:
        >>> group = Group({"k": "1"}, ((Bounded(0.5, 0.25, 1.0),),))
        >>> print(comma_separated(Table("t", "T", "", (Column("a", "share"),), (group,))))
        k,a,a (low),a (high)
        1,0.5,0.25,1.0
        <BLANKLINE>
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    bounded = [
        any(isinstance(row[k], Bounded) for group in table.groups for row in group.rows)
        for k in range(len(table.columns))
    ]
    keys = list(table.groups[0].keys) if table.groups else []
    header = [*keys]
    for column, wide in zip(table.columns, bounded, strict=True):
        header += [column.header]
        header += [f"{column.header} (low)", f"{column.header} (high)"] if wide else []
    writer.writerow(header)
    for group in table.groups:
        for row in group.rows:
            written: list[object] = list(group.keys.values())
            for value, wide in zip(row, bounded, strict=True):
                if isinstance(value, Bounded):
                    written += [_plain(entry) for entry in value]
                else:
                    written += [_plain(value), "", ""] if wide else [_plain(value)]
            writer.writerow(written)
    return stream.getvalue()


def _plain(value: Value) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value


def _is_text(column: Column) -> bool:
    return column.kind in ("text", "code")


def _words(keys: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in keys.items())


def _texts(row: Sequence[Value], columns: Sequence[Column]) -> list[str]:
    return [shown(value, column.kind) for value, column in zip(row, columns, strict=True)]


def _markdown_cells(row: Sequence[Value], columns: Sequence[Column]) -> list[str]:
    cells = []
    for text, column in zip(_texts(row, columns), columns, strict=True):
        if column.kind == "code" and text:
            fence = "``" if "`" in text else "`"
            escaped = text.replace("|", "\\|")
            cells.append(f"{fence}{escaped}{fence}")
        else:
            cells.append(_markdown_text(text))
    return cells


def _markdown_text(text: str) -> str:
    for sign in ("\\", "|", "*", "_", "`", "<", "[", "]"):
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())


_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "✓": r"$\surd$",
    "∞": r"$\infty$",
    "−": r"$-$",
    "–": "--",
    "·": r"$\cdot$",
    "τ": r"$\tau$",
    "ρ": r"$\rho$",
    "≤": r"$\leq$",
    "→": r"$\to$",
    "×": r"$\times$",
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))
