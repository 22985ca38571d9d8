"""`implicitly study`: options and their help; the work is in `studying`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Compare solvers on many problems: run, stop, resume, report.",
    no_args_is_help=True,
    add_completion=False,
)

Store = Annotated[Path, typer.Option("--store", "-s", help="Folder of rows.", file_okay=False)]
Jobs = Annotated[int, typer.Option("--jobs", "-j", help="Cells run at once.", min=1)]
Threads = Annotated[int, typer.Option(help="Threads of each cell.", min=1)]
Study = Annotated[str, typer.Argument(help="Name of a study in the store.")]

STORE = Path("build/studies")


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
        str, typer.Argument(help="A YAML or Python file, or the name of a study that is shipped.")
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
        typer.Option("--output", "-o", help="Folder; build/reports/STUDY by default."),
    ] = None,
    formats: Annotated[
        list[Format] | None,
        typer.Option("--format", "-f", help="Repeat for several; html, md and csv by default."),
    ] = None,
) -> None:
    """Write the report of a study: a page that opens offline, figures, tables."""
    from .studying import write_report

    names = [choice.value for choice in formats or (Format.HTML, Format.MD, Format.CSV)]
    raise typer.Exit(write_report(study, store, output, names))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A study of the store, or STORE:STUDY of another.")],
    b: Annotated[str, typer.Argument(help="The study to compare with, alike.")],
    store: Store = STORE,
) -> None:
    """Show what differs between two studies, cell by cell and on the whole."""
    from .studying import show_comparison

    raise typer.Exit(show_comparison(a, b, store))


@app.command("list")
def list_names(
    problems: Annotated[bool, typer.Option("--problems", help="Names of problems.")] = False,
    solvers: Annotated[bool, typer.Option("--solvers", help="Names of solvers.")] = False,
) -> None:
    """List the studies that are shipped, or the names that a configuration may use."""
    from .studying import list_known

    raise typer.Exit(list_known(problems=problems, solvers=solvers))


@app.command()
def export(
    study: Study,
    file: Annotated[Path, typer.Argument(help="Ends in .csv, .json or .parquet.")],
    store: Store = STORE,
) -> None:
    """Write the rows of a study to one file."""
    from .studying import export_rows

    raise typer.Exit(export_rows(study, file, store))
