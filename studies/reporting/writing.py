"""Writing of a report to a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import StudyError
from ..store import Plan
from .cells import Cells, arrange
from .describing import figures
from .headlines import headlines
from .intervals import Resampling
from .page import Words, page
from .styling import highlights
from .tables import comma_separated, latex, markdown
from .tabulating import tables
from .versions import all_versions
from .wording import counted

if TYPE_CHECKING:
    import pandas

Format = Literal["html", "png", "svg", "pdf", "md", "tex", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)
_TABLES = {"md": markdown, "tex": latex, "csv": comma_separated}


def report(
    rows: pandas.DataFrame,
    path: str | os.PathLike[str],
    formats: Sequence[Format] = FORMATS,
    *,
    plan: Plan | None = None,
    title: str | None = None,
    command: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Path, ...]:
    """Write the report of a study: a page, figures and tables.

    ```text
    PATH/report.html       one file, which opens without a network
    PATH/figures/*.svg     and .png, .pdf
    PATH/tables/*.md       and .tex, .csv
    ```

    If a cell occurs several times, such as with different versions of a library, its latest row counts, and
    the page says how many rows are left out.

    Args:
        rows: Rows as `Store.rows` returns them.
        path: The folder; it is created if missing. Files of the same names are replaced.
        formats: Formats among `"html"`, `"png"`, `"svg"`, `"pdf"`, `"md"`, `"tex"`, `"csv"`.
        plan: The study's plan, for the exact configuration, the machine and the number of cells planned.
        title: Heading; `None` for the study's name.
        command: The command to show that reproduces these results; `None` for that of the plan.
        resamples: Number of resamples of the bootstrap.
        seed: Seed of the bootstrap.

    Returns:
        The files written, the page first.

    Raises:
        StudyError: No rows, columns missing, an unknown format.

    Examples:
        >>> import tempfile
        >>> from implicitly.studies import Row, Store, report
        >>> store = Store(tempfile.mkdtemp())
        >>> for name, evaluations in (("Newton()", 7), ("Broyden()", 12)):
        ...     store.append(Row(name, "tiny", "boggs", "{}", 2, 1, "root", (), name, "native", None, None,
        ...                      1e-8, 0, "float64", "cpu", "{}", "solved", evaluations=evaluations))
        >>> files = report(store.rows(), tempfile.mkdtemp(), formats=("md",))
        >>> sorted(file.name for file in files)
        ['outcomes.md', 'pairs.md', 'solved.md', 'summary.md']
    """
    if isinstance(formats, str):
        raise StudyError(f"formats must be a sequence such as ('{formats}',), got {formats!r}")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise StudyError(f"no format is called {unknown[0]!r}; there are {', '.join(FORMATS)}")
    cells = arrange(rows)
    resampling = Resampling(resamples, seed)
    highlighted = highlights(cells)
    described = figures(cells)
    tabulated = tables(cells, highlighted, resampling)
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    if "html" in formats:
        said = [(part.keys, headlines(cells, part, resampling)) for part in cells.slices]
        words = _words(cells, rows, plan, title, command)
        text = page(cells, words, highlighted, described, tabulated, said)
        written.append(_write(folder / "report.html", text))
    images = [name for name in ("svg", "png", "pdf") if name in formats]
    if images:
        from .drawing import drawn, house_style

        (folder / "figures").mkdir(exist_ok=True)
        # Without dates, so that the same report gives the same files.
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
        with house_style():
            for figure in described:
                for name, drawing in drawn(figure, cells, highlighted):
                    for image in images:
                        file = folder / "figures" / f"{name}.{image}"
                        drawing.savefig(file, metadata=undated[image])
                        written.append(file)
    for name, writer in _TABLES.items():
        if name in formats:
            (folder / "tables").mkdir(exist_ok=True)
            for table in tabulated:
                written.append(_write(folder / "tables" / f"{table.name}.{name}", writer(table)))
    return tuple(written)


def _write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def _words(
    cells: Cells,
    rows: pandas.DataFrame,
    plan: Plan | None,
    title: str | None,
    command: str | None,
) -> Words:
    studies = tuple(map(str, rows["study"].unique())) if "study" in rows else ()
    study = plan.study if plan is not None else " and ".join(studies[:3]) or "study"
    return Words(
        title=title or study,
        subtitle=_subtitle(cells, plan),
        configuration=plan.configuration if plan is not None else "",
        environment=_environment(cells, plan),
        command=command or f"implicitly study resume {study}",
        foot="Made by implicitly. Everything on this page is in this file; residuals were evaluated "
        "anew by the package, whatever a solver reported.",
    )


def _subtitle(cells: Cells, plan: Plan | None) -> str:
    frame = cells.frame
    ended = f"{len(frame):,} cells"
    if plan is not None and len(plan.keys) != len(frame):
        ended = f"{len(frame):,} of {len(plan.keys):,} cells"
    parts = [
        f"{ended}: {len(cells.solvers)} solvers on {len(cells.problems)} problems, "
        f"{counted(len(cells.tolerances), 'tolerance')}, {counted(frame['seed'].nunique(), 'seed')}, "
        f"{' and '.join(cells.arithmetics)}."
    ]
    last = str(frame["ended"].max())
    if last:
        parts.append(f"The last cell ended at {last[:16].replace('T', ' ')} UTC.")
    if cells.superseded:
        parts.append(
            f"{cells.superseded:,} earlier rows of the same cells, such as of other versions, are left out."
        )
    return " ".join(parts)


def _environment(cells: Cells, plan: Plan | None) -> tuple[tuple[str, str], ...]:
    pairs: dict[str, str] = {}
    if plan is not None:
        for name, value in plan.environment.items():
            if name == "memory" and isinstance(value, int):
                pairs[name] = f"{value / 2**30:.1f} GiB"
            elif name != "versions":  # of the rows themselves, below
                pairs[name] = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
        if plan.created:
            pairs["planned"] = plan.created
    for name, values in all_versions(cells.frame["versions"]).items():
        pairs[name] = " and ".join(values)
    return tuple(pairs.items())
