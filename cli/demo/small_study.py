"""Small study of solvers: run, store and report it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

SOLVERS = ("polyalgorithm[remember=false]", "newton-krylov", "broyden", "anderson", "scipy:hybr")


def small_study(
    console: Console, folder: Path, problems: tuple[str, ...], jobs: int = 2
) -> list[str]:
    """Run a study of five solvers, print the number of problems each solves, and name the report.

    Args:
        console: Console to print to.
        folder: Folder for the report and the rows, which are reused.
        problems: Selections of problems.
        jobs: Cells run at once.

    Returns:
        Failures: claims of success that the study contradicts.
    """
    # Imported here because it is an extra.
    from ... import studies

    configuration = studies.StudyConfiguration(
        name="demo",
        description="The default of root beside three solvers and SciPy's best, on classical problems.",
        problems=problems,
        solvers=SOLVERS,
    )
    store = studies.Store(folder / "rows")
    with Progress(
        BarColumn(bar_width=10), MofNCompleteColumn(), TextColumn("cells"), console=console
    ) as bar:
        task = bar.add_task("", total=None)
        studies.run(
            configuration,
            store,
            jobs=jobs,
            on_row=lambda row, ended, total: bar.update(task, completed=ended, total=total),
        )
    rows = store.rows("demo")
    solved = rows.assign(solved=rows["outcome"] == "solved").groupby("solver", sort=False)["solved"]
    for solver, (count, among) in solved.agg(["sum", "count"]).iterrows():
        console.print(f"  {solver} solves {count} of {among}", markup=False)
    page, *_ = studies.report(rows, folder, ("html",), plan=store.plan("demo"))
    console.print(f"Report: {page}", markup=False, soft_wrap=True)
    denied = rows[(rows["outcome"] == "false success") & (rows["solver_family"] == "native")]
    return [
        f"{row.solver} claims to have solved {row.problem}, and has not"
        for row in denied.itertuples()
    ]
