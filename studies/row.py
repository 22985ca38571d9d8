"""Row of a study: one run, its outcome and its cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from .columns import Column, columns_of, normalised, with_notes

if TYPE_CHECKING:
    import pyarrow

Outcome = Literal[
    "solved", "not solved", "false success", "timed out", "crashed", "out of memory", "error"
]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
Family = Literal["native", "scipy", "adapter", "peer"]


@dataclass(frozen=True)
class Row:
    """Result of one cell of a study, whatever its outcome; unknown entries are `None`.

    Values take the types of the table: NumPy and tensor scalars become Python's, lone surrogates are escaped,
    and long exceptions are cut. A value that its column cannot hold, such as an integer beyond 64 bits,
    becomes unknown, and `exception` says so.

    Attributes:
        key: Hash of everything that defines the cell.
        study: The study that ran it.
        problem: Name of the problem.
        problem_options: Its parameters other than the defaults, in JSON.
        dimension: Unknowns of one system.
        systems: Independent systems that are solved together.
        form: `"root"` or `"fixed_point"`.
        tags: Groups that the problem belongs to.
        solver: The solver as Python writes it, without options that have their defaults, or the name that
            the user's file gives it.
        solver_family: `"native"`, `"adapter"` (another library through this package), `"scipy"` (SciPy by
            itself) or `"peer"` (another library by itself).
        gradient: The gradient mode with its options, if a gradient was taken.
        adjoint_solver: The solver of the adjoint equation, if there is one.
        tolerance: The requested tolerance.
        seed: Seed of the problem and of the cotangent.
        dtype: Such as `"float64"`.
        device: Such as `"cpu"`.
        versions: Versions of the libraries involved, in JSON.
        outcome: See `Outcome`; `"false success"` is a claimed success that the recheck contradicts.
        status: Status reported by the solver, the most severe of all systems.
        residual_reported: Largest residual norm that the solver reported, in its own norm.
        residual: Largest entry of `F` at the result, evaluated anew.
        residual_start: Largest entry of `F` at the start.
        target: Largest residual that counts as solved.
        distance: Root-mean-square distance to the nearest known root, the largest of all systems.
        root: Index of that root among the known ones.
        evaluations: Values of the equation's function.
        jvps: Products with the Jacobian.
        vjps: Products with its transpose.
        linear_iterations: Products inside of linear solves.
        steps: Steps of the slowest system.
        seconds: Median of `seconds_repeats`.
        seconds_repeats: Wall time of each timed repeat, after an untimed run; empty if the study
            takes no times.
        peak_memory: Peak of resident bytes of the process, beyond those before the cell.
        history_evaluations: Evaluations at which the smallest residual so far fell by a tenth or more;
            the last entry belongs to the smallest.
        history_residual: The largest entry of `F` there.
        gradient_error: Distance of the gradient from the dense implicit gradient, relative to its length.
        exception: The exception, or a description of how the process died.
        started: Start of the cell in UTC, ISO 8601.
        ended: End of the cell, likewise.

    Raises:
        ValueError: `outcome` is none of `OUTCOMES`, or a column that must be known cannot hold its value.

    Examples:
        >>> from implicitly.studies import OUTCOMES
        >>> OUTCOMES[0]
        'solved'
    """

    key: str
    study: str
    problem: str
    problem_options: str
    dimension: int
    systems: int
    form: str
    tags: tuple[str, ...]
    solver: str
    solver_family: str
    gradient: str | None
    adjoint_solver: str | None
    tolerance: float
    seed: int
    dtype: str
    device: str
    versions: str
    outcome: str
    status: str | None = None
    residual_reported: float | None = None
    residual: float | None = None
    residual_start: float | None = None
    target: float | None = None
    distance: float | None = None
    root: int | None = None
    evaluations: int | None = None
    jvps: int | None = None
    vjps: int | None = None
    linear_iterations: int | None = None
    steps: int | None = None
    seconds: float | None = None
    seconds_repeats: tuple[float, ...] = ()
    peak_memory: int | None = None
    history_evaluations: tuple[int, ...] = ()
    history_residual: tuple[float, ...] = ()
    gradient_error: float | None = None
    exception: str | None = None
    started: str = ""
    ended: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(OUTCOMES)}, got {self.outcome!r}")
        columns = row_columns()
        others = {
            name: value
            for name, value in self.__dict__.items()
            if not columns[name].is_plain(value)
        }
        values, notes = normalised(others, columns)
        if notes:
            text = values.get("exception", self.exception)
            values["exception"] = with_notes(text, notes)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """The row by column, for Arrow and JSON."""
        return dict(self.__dict__)

    @staticmethod
    def of(columns: dict[str, Any]) -> Row:
        """The row with these columns; lists may stand for tuples."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in columns.items()
        }
        return Row(**values)


COLUMNS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Row))


@lru_cache(maxsize=1)
def row_columns() -> dict[str, Column]:
    """The columns of `Row` by name."""
    return columns_of(Row)


def schema() -> pyarrow.Schema:
    """The columns of `Row` as Arrow types.

    Examples:
        >>> from implicitly.studies.row import schema
        >>> schema().field("history_residual").type
        ListType(list<element: double>)
    """
    import pyarrow as pa

    plain = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    return pa.schema(
        [
            pa.field(
                column.name,
                pa.list_(pa.field("element", plain[column.kind]))
                if column.several
                else plain[column.kind],
                nullable=column.nullable,
            )
            for column in row_columns().values()
        ]
    )
