"""Table of results."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from .checks import SolverReport


def results_table(reports: Sequence[SolverReport]) -> Table:
    """Table with a row for each solver."""
    # The table must fit into 80 columns.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("Solver", no_wrap=True)
    for heading in (
        "Evalua-\ntions",
        "Solved",
        "Resid-\nual",
        "Time\n(ms)",
        "Gradient\nerror\n(differ-\nences)",
        "Gradient\nerror\n(un-\nrolled)",
        "Memory\n(un-\nrolled\n= 1)",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for report in reports:
        run = report.run
        work = f"{run.evaluations}+{run.jvps}" if run.jvps else f"{run.evaluations}"
        table.add_row(
            run.name,
            work,
            f"{run.converged}/{run.systems}",
            f"{run.residual:.1e}",
            f"{1e3 * run.seconds:.1f}",
            f"{report.differences.error:.0e}",
            f"{report.unrolled.errors[-1]:.0e}",
            f"1/{1 / report.memory_ratio:.0f}",
        )
    return table


def explanation(reports: Sequence[SolverReport]) -> str:
    """Explanation of the columns, with the limits of the checks."""
    floor = max(report.differences.floor for report in reports)
    threshold = min(report.differences.threshold for report in reports)
    study = reports[0].unrolled
    return (
        "Evaluations of the cell on the whole batch, plus Jacobian products where there are any. "
        "Residual: the largest of any system, root mean square of f(z) − z. "
        "Gradient: relative error of the directional derivatives against central differences "
        f"(noise floor at most {floor:.0e}, limit from {threshold:.0e} on), and relative distance from "
        f"backpropagation through {study.depths[-1]} iterations (limit {study.floor:.0e} above a "
        "geometric decay). Memory: saved for the backward pass, against an unrolled network that "
        "applies the cell as often as the solver did."
    )
