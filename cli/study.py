"""`implicitly study`: options and their help; the work is in `studying`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .completion import shipped_studies

app = typer.Typer(
    help="Compare solvers on many problems: run, stop, resume, report.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Store = Annotated[
    Path, typer.Option("--store", "-s", help="Keep rows in this folder.", file_okay=False)
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", help="Run so many cells at once.", min=1)]
Threads = Annotated[int, typer.Option(help="Give each cell so many threads.", min=1)]
Study = Annotated[str, typer.Argument(help="Give the name of a study in the store.")]

STORE = Path("build/studies")


class Layout(str, Enum):
    """Layouts of exported rows."""

    ROWS = "rows"
    BENCHOPT = "benchopt"


class Format(str, Enum):
    """A format of a report."""

    HTML = "html"
    PNG = "png"
    SVG = "svg"
    PDF = "pdf"
    MD = "md"
    TEX = "tex"
    CSV = "csv"


# Commands import slow packages only when they run.


@app.command()
def run(
    configuration: Annotated[
        str,
        typer.Argument(
            help="Give a YAML or Python file, or the name of a study that is shipped; try quick.",
            autocompletion=shipped_studies,
        ),
    ],
    store: Store = STORE,
    jobs: Jobs = 1,
    threads: Threads = 1,
) -> None:
    """Run the cells of a study that the store does not have yet.

    Every cell ends in a row, whatever its end. Stopped at any moment, the study goes on where it was when
    it is run again or resumed. Exits with 0 once every cell has ended, 2 if that cannot be.
    """
    from .studying import run_study

    raise typer.Exit(run_study(configuration, store, jobs, threads))


@app.command()
def resume(study: Study, store: Store = STORE, jobs: Jobs = 1, threads: Threads = 1) -> None:
    """Run what is left of a study, as it was configured."""
    from .studying import resume_study

    raise typer.Exit(resume_study(study, store, jobs, threads))


@app.command()
def status(store: Store = STORE) -> None:
    """Show how far every study of a store is."""
    from .studying import show_status

    raise typer.Exit(show_status(store))


@app.command()
def report(
    study: Study,
    store: Store = STORE,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write to this folder, by default build/reports/STUDY."
        ),
    ] = None,
    formats: Annotated[
        list[Format] | None,
        typer.Option(
            "--format",
            "-f",
            help="Write this format; repeat it for several. By default html, md and csv.",
        ),
    ] = None,
) -> None:
    """Write the report of a study: a page that opens offline, figures, tables."""
    from .studying import write_report

    names = [choice.value for choice in formats or (Format.HTML, Format.MD, Format.CSV)]
    raise typer.Exit(write_report(study, store, output, names))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="Give a study of the store, or STORE:STUDY of another.")],
    b: Annotated[str, typer.Argument(help="Give the study to compare with, in the same way.")],
    store: Store = STORE,
) -> None:
    """Show what differs between two studies, cell by cell and on the whole."""
    from .studying import show_comparison

    raise typer.Exit(show_comparison(a, b, store))


@app.command("list")
def list_names(
    problems: Annotated[
        bool, typer.Option("--problems", help="List the names of problems.")
    ] = False,
    solvers: Annotated[bool, typer.Option("--solvers", help="List the names of solvers.")] = False,
) -> None:
    """List the studies that are shipped with their minutes, or the names that a configuration may use."""
    from .studying import list_known

    raise typer.Exit(list_known(problems=problems, solvers=solvers))


@app.command()
def export(
    study: Study,
    file: Annotated[
        Path, typer.Argument(help="Write to this file; its name ends in .csv, .json or .parquet.")
    ],
    layout: Annotated[
        Layout,
        typer.Option(help="Write a row per cell, or per point of a curve, as benchopt plots them."),
    ] = Layout.ROWS,
    store: Store = STORE,
) -> None:
    """Write the rows of a study to one file."""
    from .studying import export_rows

    raise typer.Exit(export_rows(study, file, store, layout.value))
