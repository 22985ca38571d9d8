"""Which classical problems are solved, from their standard start and from ten and a hundred times it.

A problem counts as solved where the residual at the value returned, evaluated once more, is at most 1e-8 in
its largest entry, after at most 10,000 evaluations. Here evaluations and products with the Jacobian
count alike, a dense Jacobian as `n` products; for SciPy every call of the function counts, those
for difference Jacobians included. Prints the table of the page beside it: `python docs/results/classical.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import implicitly
import numpy as np
import scipy.optimize
import torch
from implicitly import (
    DFSANE,
    Anderson,
    Broyden,
    Homotopy,
    LevenbergMarquardt,
    LineSearch,
    Newton,
    NewtonKrylov,
    Polyalgorithm,
    PseudoTransient,
    Solver,
    Stopping,
    TrustRegion,
    problems,
)
from implicitly.solvers.composed.members import default_members

TOLERANCE, BUDGET, SCALES = 1e-8, 10_000, (1, 10, 100)
Run = Callable[[problems.TestProblem, torch.Tensor], tuple[torch.Tensor, int]]

# `remember=False`: each solve stands alone.
OURS: dict[str, Solver] = {
    "`Polyalgorithm()`, the default of `root`": Polyalgorithm(remember=False),
    "`Polyalgorithm`, members for many unknowns": Polyalgorithm(
        default_members(1, 100_000), remember=False
    ),
    "`LevenbergMarquardt()`": LevenbergMarquardt(),
    "`Newton()`": Newton(),
    "`Newton(globalisation=LineSearch())`": Newton(globalisation=LineSearch()),
    "`Newton(globalisation=None)`": Newton(globalisation=None),
    "`PseudoTransient()`": PseudoTransient(),
    "`Homotopy()`": Homotopy(),
    '`Homotopy(kind="fixed_point")`': Homotopy(kind="fixed_point"),
    "`NewtonKrylov()`": NewtonKrylov(),
    "`NewtonKrylov(globalisation=TrustRegion())`": NewtonKrylov(globalisation=TrustRegion()),
    "`Broyden(memory=200)`": Broyden(memory=200),
    "`DFSANE()`": DFSANE(),
    "`Anderson()`": Anderson(),
}
# As tight as each method takes it, and with the whole budget.
SCIPY: dict[str, dict[str, float]] = {
    "hybr": {"xtol": 1e-13, "maxfev": BUDGET},
    "lm": {"xtol": 1e-14, "ftol": 1e-14, "maxiter": BUDGET},
    "df-sane": {"ftol": 0.0, "fatol": 0.5 * TOLERANCE, "maxfev": BUDGET},
    "krylov": {"fatol": TOLERANCE, "maxiter": BUDGET},
    "broyden1": {"fatol": TOLERANCE, "maxiter": BUDGET},
    "broyden2": {"fatol": TOLERANCE, "maxiter": BUDGET},
    "anderson": {"fatol": TOLERANCE, "maxiter": BUDGET},
}


def by(solver: Solver) -> Run:
    """Solve by a solver of this package; the value and the work."""

    def run(problem: problems.TestProblem, start: torch.Tensor) -> tuple[torch.Tensor, int]:
        stopping = Stopping(rtol=0.0, atol=TOLERANCE / len(start) ** 0.5, max_evaluations=BUDGET)
        solution = implicitly.root(
            problem.residual, start, solver=solver, stopping=stopping, on_failure="accept"
        )
        counts = solution.counts
        return solution.value, counts.evaluations + counts.jvps + counts.vjps

    return run


def by_scipy(method: str) -> Run:
    """Solve by a method of `scipy.optimize.root`; the value and the calls of the function."""

    def run(problem: problems.TestProblem, start: torch.Tensor) -> tuple[torch.Tensor, int]:
        calls = 0

        def function(z: np.ndarray) -> np.ndarray:
            nonlocal calls
            calls += 1
            if calls > BUDGET:
                raise RuntimeError("the budget is spent")
            return problem.residual(torch.from_numpy(np.array(z, dtype=np.float64))).numpy()

        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                found = scipy.optimize.root(
                    function, start.numpy(), method=method, options=SCIPY[method]
                ).x
        except Exception:  # Whatever a method raises, it has not solved the problem.
            return start, BUDGET + 1
        return torch.from_numpy(np.array(found, dtype=np.float64)), calls

    return run


def count(run: Run) -> tuple[list[int], int]:
    """How many problems are solved at each scale, and the work on those of the standard start."""
    solved, work = [0] * len(SCALES), 0
    for problem in problems.all(tag="classical"):
        for place, scale in enumerate(SCALES):
            value, used = run(problem, scale * problem.start())
            largest = problem.residual(value).abs().max().item()
            ok = largest <= TOLERANCE and used <= BUDGET
            solved[place] += ok
            work += used if ok and scale == 1 else 0
    return solved, work


def main() -> None:
    """Print the table."""
    print("| method | 1 × | 10 × | 100 × | of 69 | work where solved, 1 × |")
    print("|---|---|---|---|---|---|")
    runs = {name: by(solver) for name, solver in OURS.items()}
    runs |= {f"SciPy `{method}`": by_scipy(method) for method in SCIPY}
    for name, run in runs.items():
        solved, work = count(run)
        cells = [*solved, sum(solved), work]
        print(f"| {name} | {' | '.join(str(cell) for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
