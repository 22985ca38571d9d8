"""The matrix of problems and solvers: which solver solved which problem."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...row import OUTCOMES
from ..cells import Cells, Indices, Slice
from ..figures import Matrix, MatrixFigure
from ..styling import OUTCOME_MARKS
from .curves import median_of_known

MOST_ROWS = 80
_NOTHING_RUN, _OUTCOMES_DIFFER = -1, -2


def matrix(cells: Cells) -> MatrixFigure:
    """A matrix for each tolerance and arithmetic."""
    grouping, names, words = _grouped(cells)
    return MatrixFigure(
        name="solved",
        title="Who solved what",
        caption="Median work (evaluations and Jacobian products) where solved; "
        + ", ".join(f"{mark} {name}" for name, mark in OUTCOME_MARKS.items() if name != "solved")
        + ", nothing where it was not run. "
        + words,
        panels=tuple(_matrix_of(cells, part, grouping, names) for part in cells.slices),
    )


def compact(number: float) -> str:
    """A count in at most four characters.

    Examples:
        >>> compact(12), compact(1234), compact(56789)
        ('12', '1.2k', '57k')
    """
    if number < 1000:
        return f"{number:.0f}"
    for unit in ("k", "M"):
        number /= 1000
        if number < 999.5:
            return f"{number:.1f}{unit}" if number < 9.95 else f"{number:.0f}{unit}"
    return f"{number:.0e}"


def _grouped(cells: Cells) -> tuple[Indices, tuple[str, ...], str]:
    """The row of each problem, the names of the rows, and a sentence about them for the caption.

    A row is a problem if there are few; else all problems of a name; else all problems of a first tag.
    """
    if len(cells.problems) <= MOST_ROWS:
        seeds = len(cells.problem) > len(cells.problems)
        words = "Fractions are cells solved of those run with several seeds." if seeds else ""
        return np.arange(len(cells.problems)), cells.problems, words
    said = "Fractions are cells solved of those run; a row is all cells of "
    grouping, names = _grouped_by(cells, cells.frame["problem"])
    if len(names) <= MOST_ROWS:
        return grouping, names, said + "the problem of that name."
    first_tags = (
        tags[0] if tags is not None and len(tags) else "without a tag"
        for tags in cells.frame["tags"]
    )
    return *_grouped_by(cells, first_tags), said + "problems of that tag."


def _grouped_by(cells: Cells, labels: Any) -> tuple[Indices, tuple[str, ...]]:
    """Groups of problems by a label of each row of the frame: number of the group, and names."""
    label_of = dict(zip(_problem_of_rows(cells), labels, strict=True))
    names, grouping = np.unique(
        np.array([str(label_of[problem]) for problem in range(len(cells.problems))]),
        return_inverse=True,
    )
    return grouping, tuple(map(str, names))


def _problem_of_rows(cells: Cells) -> list[int]:
    """Number of the problem of each row of the frame."""
    found = np.full(len(cells.frame), -1)
    for part in cells.slices:
        owner = np.broadcast_to(cells.problem[part.instances][:, None], part.index.shape)
        found[part.index[part.index >= 0]] = owner[part.index >= 0]
    return [int(problem) for problem in found]


def _matrix_of(cells: Cells, part: Slice, grouping: Indices, names: tuple[str, ...]) -> Matrix:
    rows = grouping[cells.problem[part.instances]]
    kinds, solved = cells.outcomes(part), cells.solved(part)
    work = np.where(solved, cells.values(part, "work"), np.nan)
    kept = np.unique(rows)
    lines = []
    for row in kept:
        here = rows == row
        medians = median_of_known(work[here])
        lines.append(list(_entries(kinds[here], solved[here].sum(axis=0), medians)))
    return Matrix(
        keys=part.keys,
        rows=tuple(names[row] for row in kept),
        kinds=np.array([[kind for kind, _, _ in line] for line in lines]),
        shares=np.array([[share for _, share, _ in line] for line in lines]),
        texts=tuple(tuple(text for _, _, text in line) for line in lines),
    )


def _entries(kinds: Indices, hits: Indices, medians: Any) -> Iterator[tuple[int, float, str]]:
    """Kind, share solved and text of one row of the matrix, for each solver."""
    for s, solved in enumerate(hits.tolist()):
        seen = kinds[:, s][kinds[:, s] >= 0]
        if len(seen) == 0:
            yield _NOTHING_RUN, np.nan, ""
            continue
        if solved not in (0, len(seen)):
            text = f"{solved}/{len(seen)}"
        elif solved:
            text = compact(medians[s]) if np.isfinite(medians[s]) else "✓"
        else:
            text = "".join(OUTCOME_MARKS[OUTCOMES[kind]] for kind in np.unique(seen))
        alike = (seen == seen[0]).all()
        yield int(seen[0]) if alike else _OUTCOMES_DIFFER, solved / len(seen), text
