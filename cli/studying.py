"""What the commands of `implicitly study` do."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .. import studies
from ..studies.catalogue import Catalogue
from ..studies.reporting import Format
from ..studies.row import OUTCOMES, Row

_FAULT = 2
_SHOWN_IN_BAR = ("solved", "not solved", "timed out")


def run_study(configuration: str, store: Path, jobs: int, threads: int) -> int:
    """Run a study with a progress bar; the exit status."""

    def run(on_row: Callable[[Row, int, int], None]) -> studies.Summary:
        return studies.run(configuration, store, jobs=jobs, threads=threads, on_row=on_row)

    return _watched(run, store)


def resume_study(study: str, store: Path, jobs: int, threads: int) -> int:
    """Run what is left of a study; the exit status."""

    def run(on_row: Callable[[Row, int, int], None]) -> studies.Summary:
        opened = studies.Store(store, create=False)
        return studies.resume(study, opened, jobs=jobs, threads=threads, on_row=on_row)

    return _watched(run, store)


def show_status(store: Path) -> int:
    """Print how far the studies of a store are; the exit status."""
    console = Console()
    with _faults_said(console) as fault:
        table = Table("study", "cells", "left", *OUTCOMES, box=None, header_style="bold")
        for progress in studies.status(studies.Store(store, create=False)):
            counts = [str(progress.outcomes.get(outcome, 0)) for outcome in OUTCOMES]
            table.add_row(progress.study, str(progress.cells), str(progress.left), *counts)
        console.print(table)
    return fault[0]


def write_report(study: str, store: Path, output: Path | None, formats: Sequence[str]) -> int:
    """Write a report and name its files; the exit status."""
    console = Console()
    folder = Path("build/reports") / study if output is None else output
    with _faults_said(console) as fault:
        opened = studies.Store(store, create=False)
        plan = opened.plan(study)
        command = shlex.join(["implicitly", "study", "resume", study, "--store", str(store)])
        files = studies.report(
            opened.rows(study),
            folder,
            cast("Sequence[Format]", formats),
            plan=plan,
            command=command,
        )
        console.print(f"{len(files)} files in {folder}, first {files[0]}")
    return fault[0]


def show_comparison(a: str, b: str, store: Path) -> int:
    """Print what differs between two studies; the exit status."""
    console = Console()
    with _faults_said(console) as fault:
        comparison = studies.compare(_rows(a, store), _rows(b, store), names=(a, b))
        console.print(str(comparison), markup=False, soft_wrap=True)
    return fault[0]


def list_known(*, problems: bool, solvers: bool) -> int:
    """Print what can be named; the exit status."""
    console = Console()
    catalogue = Catalogue()
    for wanted, names in ((problems, catalogue.problems), (solvers, catalogue.solvers)):
        if wanted:
            console.print("\n".join(names.names), markup=False, highlight=False)
    if not problems and not solvers:
        table = Table("study", "cells", "what it shows", box=None, header_style="bold")
        for name in studies.shipped():
            settings, _ = studies.load(name)
            table.add_row(name, str(len(settings.cells())), settings.description.strip())
        console.print(table)
    return 0


def export_rows(study: str, file: Path, store: Path) -> int:
    """Write the rows of a study to one file; the exit status."""
    console = Console()
    with _faults_said(console) as fault:
        rows = studies.Store(store, create=False).rows(study)
        console.print(f"{len(rows)} rows in {studies.export(rows, file)}")
    return fault[0]


def _rows(name: str, store: Path) -> Any:
    """The rows of `STUDY`, or of `STORE:STUDY`."""
    folder, colon, study = name.rpartition(":")
    opened = studies.Store(Path(folder) if colon else store, create=False)
    return opened.rows(study)


def _watched(run: Callable[[Callable[[Row, int, int], None]], studies.Summary], store: Path) -> int:
    console = Console()
    counts: Counter[str] = Counter()
    with _faults_said(console) as fault:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
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

            summary = run(on_row)
            bar.update(task, completed=summary.cells, total=summary.cells)
        for line in summary.said:
            console.print(line, markup=False)
        ends = ", ".join(f"{count} {outcome}" for outcome, count in summary.outcomes.items())
        console.print(
            f"{summary.study}: {summary.run} cells run now, {summary.cells} in all: {ends}"
        )
        console.print(
            f"Its report: implicitly study report {summary.study} --store {shlex.quote(str(store))}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    return fault[0]


@contextmanager
def _faults_said(console: Console) -> Iterator[list[int]]:
    """Say a fault of the user's or of the store in one line, and give the exit status for it."""
    status = [0]
    try:
        yield status
    except (studies.StudyError, studies.StoreError) as error:
        console.print(f"Error: {error}", markup=False, soft_wrap=True, style="red")
        status[0] = _FAULT
