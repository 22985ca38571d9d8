"""Headlines: the sentences that the page of a study begins with."""

from __future__ import annotations

import numpy as np

from ..row import OUTCOMES
from .cells import MEASURES, Cells, Slice
from .intervals import Resampling, cheapest_shares, shares_solved
from .wording import counted, listed


def headlines(cells: Cells, part: Slice, resampling: Resampling) -> tuple[str, ...]:
    """Sentences about the cells of a slice."""
    hits = cells.solved(part)
    problems = len(part.instances)
    said = [_most_solved(cells, part, resampling)]
    by_nobody = np.flatnonzero(~hits.any(axis=1))
    run_by_all = (part.index >= 0).all(axis=0)
    if len(by_nobody):
        names = tuple(
            dict.fromkeys(cells.problems[cells.problem[part.instances[k]]] for k in by_nobody)
        )
        verb = "is" if len(by_nobody) == 1 else "are"
        said.append(
            f"{counted(len(by_nobody), 'problem')} of {problems} {verb} solved by nobody: {listed(names)}."
        )
    elif problems > 1:
        said.append(f"Each of the {problems} problems is solved by somebody.")
    for name in cells.measures:
        sentence = _cheapest(cells, part, name)
        if sentence:
            said.append(sentence)
    outcomes = cells.outcomes(part)
    false = outcomes == OUTCOMES.index("false success")
    if false.any():
        owners = tuple(cells.solvers[s].name for s in np.argsort(-false.sum(axis=0), kind="stable"))
        owners = owners[: int(false.any(axis=0).sum())]
        said.append(
            f"{counted(int(false.sum()), 'success', 'successes')} that a solver claimed "
            f"{'is' if false.sum() == 1 else 'are'} denied by the recheck of the residual, of: "
            f"{listed(owners)}."
        )
    else:
        said.append("No success that a solver claimed is denied by the recheck of the residual.")
    broken = {
        name: int((outcomes == OUTCOMES.index(name)).sum())
        for name in ("timed out", "crashed", "out of memory", "error")
    }
    if any(broken.values()):
        ends = ", ".join(f"{count} {name}" for name, count in broken.items() if count)
        said.append(f"Cells that came to no result: {ends}.")
    if not run_by_all.all():
        said.append(
            f"{counted(int((~run_by_all).sum()), 'solver')} of {len(cells.solvers)} "
            "were not run on all problems; what was not run counts as not solved in profiles."
        )
    return tuple(said)


def _most_solved(cells: Cells, part: Slice, resampling: Resampling) -> str:
    hits = cells.solved(part)
    totals = hits.sum(axis=0)
    best = np.flatnonzero(totals == totals.max())
    problems = len(part.instances)
    where = f"At tolerance {part.tolerance} in {part.arithmetic}"
    if totals.max() == 0:
        return f"{where}, no solver solves any of {counted(problems, 'problem')}."
    names = tuple(cells.solvers[s].name for s in best)
    ((_, low, high),) = shares_solved(cells, part, hits[:, best[:1]].astype(float), resampling)
    bounds = ""
    if np.isfinite(low):
        bounds = f"; {100 * resampling.level:.0f}% interval {100 * low:.0f} to {100 * high:.0f}%"
    verb = "solves" if len(best) == 1 else "solve"
    return (
        f"{where}, {listed(names)} {verb} most: {totals.max()} of {problems} problems "
        f"({100 * totals.max() / problems:.0f}%{bounds})."
    )


def _cheapest(cells: Cells, part: Slice, name: str) -> str | None:
    if len(cells.solvers) < 2:
        return None
    shares, problems = cheapest_shares(cells, part, name)
    if problems == 0 or not shares.any():
        return None
    best = np.flatnonzero(shares == shares.max())
    names = tuple(cells.solvers[s].name for s in best)
    verb = "needs" if len(best) == 1 else "each need"
    times = round(shares.max() * problems)
    quantity = "fewest evaluations" if name == "evaluations" else f"least {MEASURES[name].short}"
    return f"{listed(names)} {verb} the {quantity} most often: on {times} of {problems} problems."
