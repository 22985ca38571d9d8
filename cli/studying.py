"""Work of the commands of `implicitly study`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .. import studies
from ..studies.row import OUTCOMES, Row
from .exits import study_command

if TYPE_CHECKING:
    from ..studies.overview import Layout
    from ..studies.reporting import Format
    from ..studies.running import OnRow

_SHOWN_IN_BAR = ("solved", "not solved", "timed out")


@study_command
def run_study(console: Console, configuration: str, store: Path, jobs: int, threads: int) -> None:
    """Run a study with a progress bar."""
    _watched(
        console,
        store,
        lambda on_row: studies.run(configuration, store, jobs=jobs, threads=threads, on_row=on_row),
    )


@study_command
def resume_study(console: Console, study: str, store: Path, jobs: int, threads: int) -> None:
    """Run the remaining cells of a study with a progress bar."""
    _watched(
        console,
        store,
        lambda on_row: studies.resume(
            study, studies.Store(store, create=False), jobs=jobs, threads=threads, on_row=on_row
        ),
    )


@study_command
def show_status(console: Console, store: Path) -> None:
    """Print the progress of the studies of a store."""
    found = list(studies.status(studies.Store(store, create=False)))
    table = Table("study", "cells", "left", *OUTCOMES, box=None, header_style="bold")
    for progress in found:
        counts = [str(progress.outcomes.get(outcome, 0)) for outcome in OUTCOMES]
        table.add_row(progress.study, str(progress.cells), str(progress.left), *counts)
    # Measured without the console's width, which rich would cut names to.
    if (
        console.measure(table, options=console.options.update(max_width=10_000)).maximum
        <= console.width
    ):
        console.print(table)
        return
    for progress in found:
        ends = ", ".join(f"{count} {outcome}" for outcome, count in progress.outcomes.items())
        console.print(progress.study, soft_wrap=True)
        console.print(f"  {progress.cells} cells, {progress.left} left: {ends or 'none has ended'}")


@study_command
def write_report(
    console: Console, study: str, store: Path, output: Path | None, formats: Sequence[str]
) -> None:
    """Write a report and name its files."""
    folder = Path("build/reports") / study if output is None else output
    opened = studies.Store(store, create=False)
    plan = opened.plan(study)
    command = shlex.join(["implicitly", "study", "resume", study, "--store", _portable(store)])
    files = studies.report(
        opened.rows(study),
        folder,
        cast("Sequence[Format]", formats),
        plan=plan,
        command=command,
    )
    console.print(f"{len(files)} files in {folder}, first {files[0]}", soft_wrap=True)


@study_command
def show_comparison(console: Console, a: str, b: str, store: Path) -> None:
    """Print the differences of two studies."""
    comparison = studies.compare(_rows(a, store), _rows(b, store), names=(a, b))
    console.print(str(comparison), soft_wrap=True)


@study_command
def list_known(console: Console, *, problems: bool, solvers: bool) -> None:
    """Print the known names, or the shipped studies."""
    from ..studies.catalogue import Catalogue

    catalogue = Catalogue()
    for wanted, names in ((problems, catalogue.problems), (solvers, catalogue.solvers)):
        if wanted:
            console.print("\n".join(names.names), soft_wrap=True)
    if not problems and not solvers:
        console.print(_shipped_studies())


def _shipped_studies() -> Table:
    """The shipped studies, the shortest first, with the minutes that each takes."""
    table = Table(box=None, header_style="bold")
    for heading in ("study", "cells", "minutes"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it shows", overflow="fold")
    loaded = [studies.load(name)[0] for name in studies.shipped()]
    for settings in sorted(loaded, key=lambda settings: settings.minutes or 0):
        said = settings.description.strip()
        try:
            cells = str(len(settings.cells()))
        except studies.StudyError as error:  # The message names the missing library.
            cells, said = "–", f"{said} Not here: {error}"
        minutes = "" if settings.minutes is None else f"{settings.minutes:g}"
        table.add_row(settings.name, cells, minutes, said)
    return table


@study_command
def export_rows(console: Console, study: str, file: Path, store: Path, layout: Layout) -> None:
    """Write the rows of a study to one file."""
    rows = studies.Store(store, create=False).rows(study)
    console.print(
        f"{len(rows)} cells in {studies.export(rows, file, layout=layout)}", soft_wrap=True
    )


def _portable(store: Path) -> str:
    """The folder as a page shows it that others read: without the path on this machine."""
    if not store.is_absolute():
        return str(store)
    here = Path.cwd()
    return str(store.relative_to(here)) if store.is_relative_to(here) else store.name


def _rows(name: str, store: Path) -> Any:
    """Rows of `STUDY`, or of `STORE:STUDY`."""
    folder, colon, study = name.rpartition(":")
    opened = studies.Store(Path(folder) if colon else store, create=False)
    return opened.rows(study)


def _watched(console: Console, store: Path, run: Callable[[OnRow], studies.Summary]) -> None:
    """Run with a progress bar, then print the result and the next command."""
    counts: Counter[str] = Counter()
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("cells", total=None, counts="")

        def on_row(row: Row, ended: int, total: int) -> None:
            counts[row.outcome] += 1
            said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _SHOWN_IN_BAR)
            others = counts.total() - sum(counts[outcome] for outcome in _SHOWN_IN_BAR)
            bar.update(
                task, completed=ended, total=total, description=row.study,
                counts=f"{said}, {others} other",
            )  # fmt: skip

        try:
            summary = run(on_row)
        except (studies.StudyError, studies.StoreError, studies.GuardError, ImportError):
            bar.update(task, visible=bool(counts))
            raise
        bar.update(task, completed=summary.cells, total=summary.cells)
    for line in summary.said:
        console.print(line, soft_wrap=True)
    ends = ", ".join(f"{count} {outcome}" for outcome, count in summary.outcomes.items())
    console.print(
        f"{summary.study}: {summary.run} cells run now, {summary.cells} in all: {ends}",
        soft_wrap=True,
    )
    console.print(
        f"Its report: implicitly study report {summary.study} --store {shlex.quote(str(store))}",
        soft_wrap=True,
    )
