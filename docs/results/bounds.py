"""Problems with bounds, beside SciPy: writes `bounds.md` beside this script.

Every problem of `problems.bounded` from its standard start, by the call of its kind and by SciPy's methods
that take bounds, all with exact derivatives and with their own defaults. The error is the largest relative
distance of an unknown to the known solution, absolute where that is zero.

Run with `python docs/results/bounds.py`: some seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import torch
from implicitly.problems import bounded
from implicitly.problems.bounded import BoundedProblem

SQUARES = ("trf", "dogbox")
OBJECTIVES = ("L-BFGS-B", "trust-constr")
# SciPy's interior methods want a start off the bounds.
INSIDE = 1e-3
INTRODUCTION = """\
# Bounds beside SciPy

Every problem of `problems.bounded` from its standard start, by the call of its kind and by the methods of
SciPy that take bounds: `scipy.optimize.least_squares` for equations and sums of squares,
`scipy.optimize.minimize` for objectives and for the energy of the obstacle problem. All have exact first
derivatives and no option but their defaults. An entry is the largest relative error of an unknown (absolute
where it is zero) and the number of evaluations of the function; *(no)* says that the method does not report
success. Made by `python docs/results/bounds.py`.
"""


class Run(NamedTuple):
    """The end of one run."""

    error: float
    evaluations: int
    success: bool

    def __str__(self) -> str:
        return f"{self.error:.0e}, {self.evaluations}{'' if self.success else ' (no)'}"


def error_of(problem: BoundedProblem, z: np.ndarray) -> float:
    """The largest error of an unknown."""
    known = np.array(problem.solution)
    return float((np.abs(z - known) / np.where(known != 0, np.abs(known), 1.0)).max())


def ours(problem: BoundedProblem) -> Run:
    """The call of the toolkit."""
    solution = problem.solve(on_failure="accept")
    error = error_of(problem, solution.value.numpy())
    return Run(error, solution.evaluations, bool(solution.converged))


def objective(problem: BoundedProblem) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The objective, that of the obstacle being its energy; `None` for other problems."""
    if problem.kind == "minimise":
        return problem.function
    if problem.name == "obstacle":
        return lambda z: 0.5 * (z * problem.function(z)).sum()
    return None


def of_arrays(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[np.ndarray], Any]:
    """The same function of arrays."""
    return lambda z: function(torch.from_numpy(z)).numpy()


def by_scipy(problem: BoundedProblem, method: str) -> Run | None:
    """A method of SciPy; `None` where it does not take the problem."""
    lower, upper = (bound.numpy() for bound in problem.bounds())
    start = np.clip(problem.start().numpy(), lower + INSIDE, upper - INSIDE)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if method in SQUARES:
            if problem.kind not in ("root", "least_squares"):
                return None
            jacobian = of_arrays(torch.func.jacrev(problem.function))
            found = scipy.optimize.least_squares(
                of_arrays(problem.function), start, jacobian, bounds=(lower, upper), method=method
            )
        else:
            function = objective(problem)
            if function is None:
                return None
            found = scipy.optimize.minimize(
                of_arrays(function), start, jac=of_arrays(torch.func.grad(function)),
                bounds=scipy.optimize.Bounds(lower, upper), method=method,
            )  # fmt: skip
    return Run(error_of(problem, found.x), int(found.nfev), bool(found.success))


def main() -> None:
    """Write the table."""
    methods = (*SQUARES, *OBJECTIVES)
    titles = ["`implicitly`", *(f"SciPy `{method}`" for method in methods)]
    rows = [f"| problem | unknowns | call | {' | '.join(titles)} |", f"|---|--:|---{'|--:' * 5}|"]
    for problem in bounded.all():
        runs = [ours(problem), *(by_scipy(problem, method) for method in methods)]
        entries = ("–" if run is None else str(run) for run in runs)
        rows.append(
            f"| `{problem.name}` | {problem.n} | `{problem.kind}` | {' | '.join(entries)} |"
        )
    text = INTRODUCTION + "\n" + "\n".join(rows) + "\n"
    Path(__file__).with_name("bounds.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
