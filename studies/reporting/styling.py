"""Colours, dashes and markers of solvers, the same in every figure."""

from __future__ import annotations

from collections.abc import Sequence

from ..row import OUTCOMES
from .cells import FAMILIES, Cells

# Okabe & Ito 2008: distinct for every common colour vision. Their yellow is too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# The same hues, lighter, on a dark ground.
DARK_COLOURS = ("#4FA8E0", "#FF8A4C", "#2BC39A", "#E6A3C9", "#F2B53C", "#9AD4F8", "#EDEDED")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down")
DASHES = {"native": "solid", "adapter": "dash", "scipy": "dot", "peer": "dashdot"}
FAMILY_NAMES = {
    "native": "native",
    "adapter": "another library through this package",
    "scipy": "SciPy by itself",
    "peer": "another library by itself",
}
# A letter and a colour each, so that neither alone carries the meaning.
OUTCOME_MARKS = dict(zip(OUTCOMES, ("✓", "–", "F", "T", "C", "M", "E"), strict=True))
OUTCOME_COLOURS = dict(
    zip(
        OUTCOMES,
        ("#009E73", "#BBBBBB", "#D55E00", "#E69F00", "#7A3B9A", "#CC79A7", "#333333"),
        strict=True,
    )
)
DARK_OUTCOME_COLOURS = dict(
    zip(
        OUTCOMES,
        ("#2BC39A", "#5B6570", "#FF8A4C", "#F2B53C", "#B48AD6", "#E6A3C9", "#EDEDED"),
        strict=True,
    )
)


def highlights(cells: Cells) -> tuple[int, ...]:
    """Solvers that figures show in colour at first: the best of each family, then the next best.

    A better solver solves more over all slices, or as much with less work.
    """
    ranked = cells.ranked(cells.slices)
    firsts = [_first_of(cells, ranked, family) for family in FAMILIES]
    chosen = list(dict.fromkeys([s for s in firsts if s is not None] + ranked))[: len(COLOURS)]
    return tuple(sorted(chosen, key=ranked.index))


def _first_of(cells: Cells, ranked: Sequence[int], family: str) -> int | None:
    return next((s for s in ranked if cells.solvers[s].family == family), None)
