"""Which solver solves which classical problem: writes `solved.md` beside this script.

From the rows of the study `classical` at 1e-8; cells that the store does not have yet are run.

Run with `python docs/results/solved.py [STORE]`; the store is `build/studies` unless given.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from implicitly import problems, studies

STUDY, TOLERANCE = "classical", 1e-8
SYMBOLS = {
    ("solved", "other"): "●",
    ("not solved", "STALLED"): "s",
    ("not solved", "DIVERGED"): "d",
    ("not solved", "NON_FINITE"): "n",
    ("not solved", "LINEAR_SOLVE_FAILED"): "l",
    ("not solved", "MAX_STEPS"): "m",
    ("not solved", "BUDGET_SPENT"): "m",
    ("not solved", "other"): "x",
    ("false success", "other"): "F",
    ("error", "other"): "e",
    ("timed out", "other"): "t",
}
INTRODUCTION = """\
# Which solver solves which classical problem

Solvers on the 23 classical problems, from the standard start in float64: every entry of the residual at most
1e-8, checked again on what came back, in at most 10,000 evaluations. Made by `python docs/results/solved.py`
from the rows of the study [`classical`](studies.md#classical); `tests/problems/test_expected.py` holds
solvers to it.

● solved, s stalled, d diverged, m steps or evaluations spent, n not finite, l linear equation not
solved, x the library says that it has failed, F it says that it has not, e an error raised inside of it.
"""


def symbol(outcome: str, status: str | None) -> str:
    """How a cell ended, as a letter."""
    return SYMBOLS.get((outcome, str(status)), SYMBOLS.get((outcome, "other"), "?"))


def markdown(rows: pd.DataFrame) -> str:
    """The page."""
    names = problems.names(tag="classical")
    numbers = [str(i) for i in range(1, len(names) + 1)]
    lines = [INTRODUCTION, line(["solver", *numbers, "solved"]), "|---" * (len(names) + 2) + "|"]
    for solver, cells in rows.groupby("solver", sort=False):
        ended = {
            row.problem: symbol(row.outcome, row.status) for row in cells.itertuples(index=False)
        }
        solved = int((cells.outcome == "solved").sum())
        lines.append(line([f"`{solver}`", *(ended[name] for name in names), str(solved)]))
    lines += ["", "| | problem | unknowns |", "|---|---|---|"]
    for i, problem in enumerate(problems.all(tag="classical"), start=1):
        lines.append(line([str(i), f"`{problem.name}`", str(problem.standard_size)]))
    return "\n".join(lines) + "\n"


def line(cells: list[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run what is missing, and write the page."""
    store = studies.Store(sys.argv[1] if len(sys.argv) > 1 else "build/studies")
    studies.run(STUDY, store, jobs=2)
    rows = store.rows(STUDY)
    page = markdown(rows[rows.tolerance == TOLERANCE])
    Path(__file__).with_suffix(".md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
