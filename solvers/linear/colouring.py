"""Colours for the columns of a sparse matrix, in compiled code."""

from __future__ import annotations

from ..compiled.numba_code import Array
from ..compiled.numba_rows import jit_step


@jit_step
def first_fit(
    row_starts: Array, row_columns: Array, column_starts: Array, column_rows: Array, order: Array,
    seen: Array, colours: Array,
) -> None:  # fmt: skip
    """Give each column in turn the first colour that is free among the columns sharing a row with it."""
    for column in order:
        for k in range(column_starts[column], column_starts[column + 1]):
            row = column_rows[k]
            for other in range(row_starts[row], row_starts[row + 1]):
                colour = colours[row_columns[other]]
                if colour >= 0:
                    seen[colour] = column
        colour = 0
        while seen[colour] == column:
            colour += 1
        colours[column] = colour
