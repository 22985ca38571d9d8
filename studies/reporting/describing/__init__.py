"""Descriptions of all figures of a study; each module describes one or two figures."""

from __future__ import annotations

from dataclasses import replace

from ..cells import Cells
from ..figures import Figure
from . import accuracy, convergence, cost_by_size, outcomes, profiles
from .solved_matrix import matrix

_CURVES = (
    (profiles.PERFORMANCE, profiles.performance),
    (profiles.DATA, profiles.data),
    (accuracy.WORK_PRECISION, accuracy.work_precision),
    (cost_by_size.SCALING, cost_by_size.scaling),
    (convergence.TRACES, convergence.traces),
    (accuracy.GRADIENT_ERROR, accuracy.gradient_error),
)


def figures(cells: Cells) -> tuple[Figure, ...]:
    """Every figure for which these cells have data."""
    bars = replace(outcomes.OUTCOMES_OF_CELLS, panels=tuple(outcomes.bars(cells)))
    curves = (replace(figure, panels=tuple(panels(cells))) for figure, panels in _CURVES)
    made: tuple[Figure, ...] = (matrix(cells), *curves, bars)
    return tuple(figure for figure in made if figure.panels)
