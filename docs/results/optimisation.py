"""Minimisers beside other libraries: writes `optimisation.md` beside this script.

The 35 problems of Moré, Garbow & Hillstrom from 1, 10 and 100 times their starts, batches of quadratic
programmes, and least squares of many unknowns. `--jax PYTHON` names a Python with jax, jaxopt and optimistix;
without it the rows of these libraries are those of the last run with it, and none if there was none.

Run with `OMP_NUM_THREADS=1 python docs/results/optimisation.py --jax PYTHON`: half an hour, most of which is
compilation by JAX.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import implicitly as im
import numpy as np
import scipy.optimize
import torch
from implicitly.problems import least_squares as collection
from implicitly.problems.least_squares import LeastSquaresProblem
from optimisation_large import programme_table, smoothing_table
from optimisation_problems import SCALES, write

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "optimisation"
# The minima are tabulated to six digits; a sum of squares of zero is this part of that at the start.
TABULATED, ZERO = 2e-5, 1e-12
EVALUATIONS, DENSE_STEPS = 5000, 500
Z = torch.Tensor


class Run(NamedTuple):
    """The end of one run: the point, `None` of none, evaluations, and seconds of the processor."""

    z: Any
    evaluations: int
    seconds: float


def is_minimum(problem: LeastSquaresProblem, z: Any) -> bool:
    """True if the sum of squares at a point is that of a minimum of the literature."""
    if z is None or not np.isfinite(z).all():
        return False

    def squares(at: Z) -> float:
        return problem.residual(at).square().sum().item()

    value, first = (
        squares(torch.tensor(z, dtype=torch.float64)),
        squares(replace(problem, start_scale=1.0).start()),
    )
    near = [TABULATED * m if m else ZERO * max(first, 1e-3) for m in problem.minima]
    return any(abs(value - m) <= away for m, away in zip(problem.minima, near, strict=True))


def half(problem: LeastSquaresProblem) -> Callable[[Z], Z]:
    """The objective: half the sum of squares."""
    return lambda z: 0.5 * problem.residual(z).square().sum()


def own(
    problem: LeastSquaresProblem, call: Callable[..., im.Solution], function: Any, solver: Any
) -> Run:
    """A call of this package."""
    begun = time.process_time()
    found = call(function, problem.start(), solver=solver, on_failure="accept")
    return Run(found.value.numpy(), found.evaluations, time.process_time() - begun)


def of_arrays(function: Callable[[Z], Z]) -> Callable[[np.ndarray], Any]:
    """The same function of arrays."""
    return lambda z: function(torch.from_numpy(z)).numpy()


def squares_of_scipy(problem: LeastSquaresProblem, method: str) -> Any:
    """`scipy.optimize.least_squares` with exact Jacobians."""
    jacobian = of_arrays(torch.func.jacrev(lambda z: problem.residual(z)))
    return scipy.optimize.least_squares(
        of_arrays(problem.residual), problem.start().numpy(), jacobian, method=method, x_scale="jac",
        xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=EVALUATIONS,
    )  # fmt: skip


def minima_of_scipy(problem: LeastSquaresProblem, method: str) -> Any:
    """`scipy.optimize.minimize` with exact derivatives."""
    f = half(problem)
    exact = {"jac": of_arrays(torch.func.grad(f))}
    options: dict[str, Any] = {"maxiter": EVALUATIONS, "gtol": 1e-10}
    if method == "trust-exact":
        options["maxiter"] = DENSE_STEPS
        exact["hess"] = of_arrays(torch.func.hessian(f))
    if method == "L-BFGS-B":
        options |= {"maxfun": EVALUATIONS, "ftol": 1e-16}
    return scipy.optimize.minimize(
        of_arrays(f), problem.start().numpy(), method=method, options=options, **exact
    )


def by_scipy(call: Callable[..., Any], problem: LeastSquaresProblem, method: str) -> Run:
    """A run of SciPy; no point where it raises an error."""
    begun = time.process_time()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            found = call(problem, method)
        except (ValueError, np.linalg.LinAlgError):  # Values that are not finite.
            return Run(None, 0, time.process_time() - begun)
    return Run(found.x, int(found.nfev), time.process_time() - begun)


CONTESTANTS: dict[str, Callable[[LeastSquaresProblem], Run]] = {
    "`least_squares`": lambda p: own(p, im.least_squares, p.residual, None),
    '`least_squares`, `GaussNewton("dogleg")`': lambda p: own(
        p, im.least_squares, p.residual, im.GaussNewton("dogleg")
    ),
    "`minimise`": lambda p: own(p, im.minimise, half(p), None),
    "`minimise`, `LBFGS()`": lambda p: own(p, im.minimise, half(p), im.LBFGS()),
    "SciPy `lm`": lambda p: by_scipy(squares_of_scipy, p, "lm"),
    "SciPy `trf`": lambda p: by_scipy(squares_of_scipy, p, "trf"),
    "SciPy `dogbox`": lambda p: by_scipy(squares_of_scipy, p, "dogbox"),
    "SciPy `BFGS`": lambda p: by_scipy(minima_of_scipy, p, "BFGS"),
    "SciPy `L-BFGS-B`": lambda p: by_scipy(minima_of_scipy, p, "L-BFGS-B"),
    "SciPy `trust-exact`": lambda p: by_scipy(minima_of_scipy, p, "trust-exact"),
}


def runs_here() -> Iterator[tuple[str, str, float, Run]]:
    """The runs of this package and of SciPy."""
    for solver, run in CONTESTANTS.items():
        run(collection.get("rosenbrock"))  # Loads code.
        for problem in collection.all():
            for scale in SCALES:
                yield solver, problem.name, scale, run(replace(problem, start_scale=scale))


def runs_of_jax(python: str | None) -> Iterator[tuple[str, str, float, Run]]:
    """The runs of JAXopt and Optimistix, made anew if a Python is given."""
    problems, found = BUILD / "problems.json", BUILD / "found.jsonl"
    if python is not None:
        write(problems)
        subprocess.run([python, HERE / "optimisation_jax.py", problems, found], check=True)
    if not found.exists():
        return
    for line in found.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        run = Run(row["z"], row.get("evaluations", 0), row.get("seconds", 0.0))
        yield row["solver"], row["problem"], row["scale"], run


def table(runs: list[tuple[str, str, float, Run]]) -> str:
    """A row for each solver: minima reached, evaluations and time."""
    rows = [
        "| solver | 1 × | 10 × | 100 × | of 105 | evaluations or steps, 1 × | seconds, 1 × |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for solver in dict.fromkeys(solver for solver, *_ in runs):
        own_runs = [one[1:] for one in runs if one[0] == solver]
        mine = [
            (scale, run, is_minimum(collection.get(name), run.z)) for name, scale, run in own_runs
        ]
        counts = [sum(ok for scale, _, ok in mine if scale == wanted) for wanted in SCALES]
        solved = [run.evaluations for scale, run, ok in mine if scale == 1.0 and ok]
        seconds = sum(run.seconds for scale, run, _ in mine if scale == 1.0)
        shown = f"{seconds:.1f}" if seconds >= 0.1 else f"{seconds:.3f}"
        rows.append(
            f"| {solver} | {' | '.join(map(str, counts))} | {sum(counts)} | {np.median(solved):.0f} "
            f"| {shown} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Write the page, with the tables in the places that its template has for them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jax", help="a Python with jax, jaxopt and optimistix")
    given = parser.parse_args()
    runs = [*runs_here(), *runs_of_jax(given.jax)]
    page, tables = HERE / "optimisation.md", {
        "collection": table(runs), "programmes": programme_table(), "smoothing": smoothing_table()
    }  # fmt: skip
    text = page.read_text(encoding="utf-8")
    for name, rows in tables.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = before + begin + rows + end + rest.split(end)[1]
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
