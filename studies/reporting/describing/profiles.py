"""Performance profiles and data profiles: shares of problems as step functions of a budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...profiles import Steps, data_profile, evaluations_to_reach, performance_profile
from ..cells import Cells, Floats, Indices, Slice
from ..figures import Axis, Curve, CurveFigure, Panel

# Limit on the jumps of a curve.
MOST_JUMPS = 150
REDUCTIONS = (1e-7, 1e-5, 1e-3, 1e-1)

PERFORMANCE = CurveFigure(
    name="performance",
    title="Performance profiles",
    caption="Share of all problems that a solver solves at a cost within a factor τ of the cheapest "
    "solver on that problem (Dolan & Moré 2002). At τ = 1: how often it is the cheapest; at "
    "the right: how many it solves at all. With more than two solvers only the best is ranked "
    "reliably (Gould & Scott 2016): who wins between two is in the table of pairs.",
    x=Axis("factor τ over the cheapest"),
    y=Axis("share of problems solved", log=False, share=True),
    shape="steps",
    facets=("tolerance", "arithmetic"),
)
DATA = CurveFigure(
    name="data",
    title="Data profiles",
    caption="Share of problems on which the residual fell to τ times that at the start within a "
    "budget of evaluations, counted in units of n + 1, the price of one Jacobian by "
    "differences (Moré & Wild 2009). Jacobian products are not counted here.",
    x=Axis("evaluations / (n + 1)"),
    y=Axis("share of problems", log=False, share=True),
    shape="steps",
    facets=("reduction τ", "arithmetic"),
)


def performance(cells: Cells) -> Iterator[Panel]:
    """Performance profiles by each measure, from the loosest tolerance to the tightest."""
    for name, measure in cells.measures.items():
        for part in cells.slices:
            costs, known = cells.costs(part, name)
            if len(costs):
                yield Panel(
                    keys={"cost": measure.shown, **part.keys},
                    curves=_stepped(performance_profile(costs), start=1.0),
                    x_most=_end(costs.min(axis=1, keepdims=True), costs),
                    note=_problems_note(part, known),
                )


def data(cells: Cells) -> Iterator[Panel]:
    """Data profiles by the required reduction, from the histories at the tightest tolerance."""
    for arithmetic in cells.arithmetics:
        part = cells.tightest(arithmetic)
        dimensions = cells.dimension[part.instances]
        for tau in REDUCTIONS:
            needed = reached(cells, part, tau)
            if np.isfinite(needed).any():
                profiles = data_profile(needed, dimensions.astype(np.float64))
                yield Panel(
                    keys={"reduction τ": f"{tau:g}", "arithmetic": arithmetic},
                    curves=_stepped(profiles, start=None),
                    x_most=_end(dimensions[:, None] + 1, needed),
                    note=f"From the histories at tolerance {part.tolerance}.",
                )


def reached(cells: Cells, part: Slice, tau: float) -> Floats:
    """Evaluations after which each cell's residual is at most `tau` of the initial one, `inf` if never."""
    rows = part.index[part.index >= 0]
    evaluations = cells.lists("history_evaluations", rows)
    residuals = cells.lists("history_residual", rows)
    needed = evaluations_to_reach(
        np.concatenate(evaluations) if evaluations else np.empty(0),
        np.concatenate(residuals) if residuals else np.empty(0),
        np.array([len(history) for history in residuals]),
        cells.column("residual_start")[rows],
        tau,
    )
    found = np.full(part.index.shape, np.inf)
    found[part.index >= 0] = np.maximum(needed, 1)
    return found


def _stepped(profiles: Sequence[Steps], start: float | None) -> tuple[Curve, ...]:
    """Profiles as curves; a profile that stays at zero is left out."""
    curves = []
    for solver, profile in enumerate(profiles):
        if profile.limit == 0:
            continue
        steps = profile.thinned(MOST_JUMPS)
        first = steps.jumps[0] if start is None else start
        curves.append(Curve(solver, np.append(first, steps.jumps), np.append(0.0, steps.shares)))
    return tuple(curves)


def _end(unit: Floats | Indices, costs: Floats) -> float:
    """End of the x-axis, a little beyond the last jump."""
    with np.errstate(invalid="ignore"):
        scaled = costs / unit
    largest = scaled[np.isfinite(scaled)].max(initial=1.0)
    return float(max(largest * 1.15, 2.0))


def _problems_note(part: Slice, known: NDArray[np.bool_]) -> str:
    note = f"{int(known.sum())} problems."
    if not known.all():
        note += f" {int((~known).sum())} are left out, since this cost was not measured on them."
    missing = (part.index < 0).any(axis=0)
    if missing.any():
        note += f" {int(missing.sum())} solvers were not run on all: there they count as failing."
    return note
