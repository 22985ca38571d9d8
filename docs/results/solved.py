"""Which native solver solves which classical problem: writes `solved.md` beside this script.

Each of the 23 problems from its standard start in float64, with the default patience, until the largest
entry of the residual is at most 1e-8, in at most 10,000 evaluations (a linearization counts as one) and as
many steps. The residual of what comes back is evaluated again.

Run with `python docs/results/solved.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from implicitly import (
    DFSANE,
    Aitken,
    Anderson,
    Broyden,
    FixedPointIteration,
    Homotopy,
    LevenbergMarquardt,
    LineSearch,
    Newton,
    NewtonKrylov,
    NonmonotoneLineSearch,
    Polyalgorithm,
    PseudoTransient,
    Solver,
    Steffensen,
    Stopping,
    TrustRegion,
    problems,
    root,
)
from implicitly.problems import TestProblem
from implicitly.solvers import BiCGStab, Status

TOLERANCE = 1e-8
LIMIT = 10_000

SOLVERS: dict[str, Solver] = {
    # Each solve stands alone.
    "Polyalgorithm()": Polyalgorithm(remember=False),
    "Homotopy()": Homotopy(),
    "Newton()": Newton(),
    "Newton(globalisation=None)": Newton(globalisation=None),
    "Newton(LineSearch())": Newton(globalisation=LineSearch()),
    "Newton(NonmonotoneLineSearch())": Newton(globalisation=NonmonotoneLineSearch()),
    "Newton(TrustRegion())": Newton(globalisation=TrustRegion()),
    "Newton(refresh=3)": Newton(refresh=3),
    "Newton(refresh=None)": Newton(refresh=None),
    "LevenbergMarquardt()": LevenbergMarquardt(),
    "PseudoTransient()": PseudoTransient(),
    "NewtonKrylov()": NewtonKrylov(),
    "NewtonKrylov(TrustRegion())": NewtonKrylov(globalisation=TrustRegion()),
    "NewtonKrylov(BiCGStab())": NewtonKrylov(linear_solver=BiCGStab()),
    'Broyden(kind="good")': Broyden(kind="good"),
    'Broyden(kind="bad")': Broyden(kind="bad"),
    'Anderson(kind="II")': Anderson(kind="II"),
    'Anderson(kind="I")': Anderson(kind="I"),
    "DFSANE()": DFSANE(),
    "Aitken()": Aitken(),
    "Steffensen()": Steffensen(),
    "FixedPointIteration()": FixedPointIteration(),
}


@dataclass(frozen=True)
class Cell:
    """One solver on one problem."""

    solved: bool
    claimed: bool
    status: str
    evaluations: int
    residual: float


def attempt(problem: TestProblem, solver: Solver) -> Cell:
    """Solve, and check what came back."""
    size = problem.standard_size
    # A root-mean-square norm of 1e-8/√n bounds every entry by 1e-8.
    stopping = Stopping(
        rtol=0.0, atol=TOLERANCE / size**0.5, max_steps=LIMIT, max_evaluations=LIMIT
    )
    solution = root(
        problem.residual, problem.start(), solver=solver, stopping=stopping, on_failure="accept"
    )
    residual = problem.residual(solution.value).abs().max().item()
    return Cell(
        solved=residual <= TOLERANCE,
        claimed=bool(solution.converged),
        status=Status(int(solution.status)).name,
        evaluations=solution.counts.evaluations,
        residual=residual,
    )


SYMBOLS = {
    "CONVERGED": "●",
    "STALLED": "s",
    "DIVERGED": "d",
    "MAX_STEPS": "m",
    "NON_FINITE": "n",
    "LINEAR_SOLVE_FAILED": "l",
}


def markdown(cells: dict[str, dict[str, Cell]]) -> str:
    """The page."""
    names = problems.names(tag="classical")
    numbers = " | ".join(str(i) for i in range(1, len(names) + 1))
    lines = [
        "# Which solver solves which classical problem",
        "",
        "Which native solver solves which of the 23 classical problems, from the standard start in",
        "float64: every entry of the residual at most 1e-8, checked again on what came back, in at most",
        "10,000 evaluations. Made by `python docs/results/solved.py`; `tests/problems/test_expected.py`",
        "holds solvers to it.",
        "",
        "● solved, s stalled, d diverged, m steps or evaluations spent, n not finite, l linear equation not",
        "solved. None reports success on what is not a root.",
        "",
        f"| solver | {numbers} | solved |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for solver, row in cells.items():
        symbols = " | ".join(SYMBOLS.get(row[name].status, "?") for name in names)
        lines.append(f"| `{solver}` | {symbols} | {sum(row[name].solved for name in names)} |")
    lines += ["", "| | problem | unknowns |", "|---|---|---|"]
    for i, problem in enumerate(problems.all(tag="classical"), start=1):
        lines.append(f"| {i} | `{problem.name}` | {problem.standard_size} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all, and write the page."""
    cells: dict[str, dict[str, Cell]] = {}
    for label, solver in SOLVERS.items():
        cells[label] = {p.name: attempt(p, solver) for p in problems.all(tag="classical")}
        row = cells[label]
        print(f"{label}: {sum(cell.solved for cell in row.values())}", flush=True)
        for name, cell in row.items():
            if not cell.solved or cell.claimed != cell.solved:
                print(f"    {name}: {cell.status} {cell.residual:.1e} {cell.evaluations}")
            if cell.claimed and not cell.solved:
                raise AssertionError(f"{label} claims to have solved {name}: {cell.residual:.1e}")
    Path(__file__).with_suffix(".md").write_text(markdown(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
