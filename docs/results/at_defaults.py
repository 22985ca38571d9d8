"""What a user gets who chooses nothing: writes `at-defaults.md` beside this script.

`implicitly.root` and `scipy.optimize.root`, each with its own defaults, on the 23 classical problems from 1,
10 and 100 times their start, and on the 55 cases of MINPACK's test of `hybrd`. Values are judged by their
residual, evaluated again in float64; a value with a larger one is right only if its stated error says so.

Run with `python docs/results/at_defaults.py`: about two minutes.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import implicitly
import torch
from implicitly import problems
from scipy.optimize import root as scipy_root

SMALL = 1e-8
# A stated error is right if the value is within ten times of it from a root.
FACTOR = 10
SCALES = (1, 10, 100)
# The tolerances of a rule that looks at the residual alone, beside that at the start.
RESIDUAL = {torch.float64: 1e-10, torch.float32: 1e-6}
# Moré, Garbow & Hillstrom 1981; MINPACK's driver of `hybrd`: name, unknowns, number of starts.
MINPACK = [
    ("generalised-rosenbrock", 2, 3), ("powell-singular", 4, 3), ("powell-badly-scaled", 2, 2),
    ("wood", 4, 3), ("helical-valley", 3, 3), ("watson", 6, 2), ("watson", 9, 2),
    ("chebyquad", 5, 3), ("chebyquad", 6, 3), ("chebyquad", 7, 3), ("chebyquad", 8, 1),
    ("chebyquad", 9, 1), ("brown-almost-linear", 10, 3), ("brown-almost-linear", 30, 1),
    ("brown-almost-linear", 40, 1), ("discrete-boundary-value", 10, 3), ("discrete-integral", 1, 3),
    ("discrete-integral", 10, 3), ("trigonometric", 10, 3), ("variably-dimensioned", 10, 3),
    ("broyden-tridiagonal", 10, 3), ("broyden-banded", 10, 3),
]  # fmt: skip
INTRODUCTION = """\
# At defaults

What comes back of `implicitly.root(F, z0)` and of `scipy.optimize.root(F, z0)`, with no option but the
default, judged by the largest residual of an equation, evaluated again in float64 at what came back. Made by
`python docs/results/at_defaults.py`.

*right*: called converged, with a residual of at most 1e-8 (in float32: 1e-3); *large residual*: called
converged with a larger one, but no farther from a root than ten times the stated error (SciPy states none);
*false*: called converged otherwise; *refused*: not called converged. `chebyquad` has no root for 8 unknowns.
The rows with `rtol_residual` look at the residual alone, beside that at the start, which was the rule before
the error was estimated.
"""


class Case(NamedTuple):
    """A problem with its start."""

    label: str
    residual: Callable[[torch.Tensor], torch.Tensor]
    start: torch.Tensor


def classical() -> Iterator[Case]:
    """The classical problems from three starts; those that start at zero from all ones times the factor."""
    for problem in problems.all(tag="classical"):
        start = problem.start()
        for scale in SCALES:
            far = scale * start if bool((start != 0).any()) else start + scale - 1
            yield Case(f"{problem.name} × {scale}", problem.residual, far)


def minpack() -> Iterator[Case]:
    """The 55 cases of MINPACK."""
    for name, n, starts in MINPACK:
        problem = problems.get(name)
        for scale in SCALES[:starts]:
            yield Case(f"{name} {n} × {scale}", problem.residual, scale * problem.start(n))


def judged(case: Case, value: torch.Tensor, converged: bool, error: float, small: float) -> str:
    """How a solve ended."""
    if not converged:
        return "refused"
    z = value.double()
    if bool(case.residual(z).abs().max() <= small):
        return "right"
    near = implicitly.root(
        case.residual, z, solver=implicitly.Newton(globalisation=None), on_failure="accept",
        stopping=implicitly.Stopping(rtol=1e-12, max_steps=50),
    )  # fmt: skip
    if not bool(near.converged):
        return "false"
    away = (z - near.value).abs().max() / near.value.abs().max()
    return "large residual" if bool(away <= FACTOR * error) else "false"


def ours(case: Case, dtype: torch.dtype, residual_alone: bool) -> tuple[str, Any]:
    """The outcome of `implicitly.root`, and its work."""
    small = SMALL if dtype == torch.float64 else 1e-3
    rule = implicitly.Stopping(rtol_residual=RESIDUAL[dtype]) if residual_alone else None
    start = case.start.to(dtype)
    solution = implicitly.root(case.residual, start, stopping=rule, on_failure="accept")
    work = solution.counts.evaluations, solution.counts.products
    error = 0.0 if residual_alone else float(solution.error)
    return judged(case, solution.value, bool(solution.converged), error, small), work


def scipys(case: Case) -> str:
    """The outcome of `scipy.optimize.root`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = scipy_root(lambda x: case.residual(torch.from_numpy(x)).numpy(), case.start.numpy())
    return judged(case, torch.from_numpy(found.x), bool(found.success), 0.0, SMALL)


def line(cells: list[Any]) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Solve all cases, and write the page."""
    torch.set_num_threads(1)
    kinds = ("right", "large residual", "false", "refused")
    head = ["cases", "", *kinds, "median evaluations", "median products"]
    lines = [INTRODUCTION, line(head), "|---|---|" + "--:|" * (len(head) - 2)]
    notes = []
    for name, cases in (("classical", list(classical())), ("MINPACK", list(minpack()))):
        for dtype, alone in product((torch.float64, torch.float32), (False, True)):
            ended, work = zip(*(ours(case, dtype, alone) for case in cases), strict=True)
            counts = Counter(ended)
            label = f"`implicitly.root`, {str(dtype).removeprefix('torch.')}"
            label += f", `rtol_residual={RESIDUAL[dtype]:.0e}`" if alone else ""
            medians = [median(w[i] for w in work) for i in (0, 1)]
            lines.append(
                line([f"{name}, {len(cases)}", label, *(counts[k] for k in kinds), *medians])
            )
            if alone:
                continue
            others = (
                f"{case.label}: {how}"
                for case, how in zip(cases, ended, strict=True)
                if how != "right"
            )
            notes.append(f"* {name}, {str(dtype).removeprefix('torch.')}: " + "; ".join(others))
        counts = Counter(map(scipys, cases))
        label = "`scipy.optimize.root`, float64"
        lines.append(line([f"{name}, {len(cases)}", label, *(counts[k] for k in kinds), "", ""]))
    lines += ["", "Not *right* of ours:", "", *notes]
    Path(__file__).with_name("at-defaults.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
