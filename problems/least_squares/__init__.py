"""The 35 least-squares problems of Moré, Garbow & Hillstrom (1981), by name.

Systems of equations among them share their functions with `problems.classical`.
"""

from __future__ import annotations

from dataclasses import replace

from ..registry import named
from .any_size import ANY_SIZE
from .few import FEW
from .problem import LeastSquaresProblem

_BY_NAME = {problem.name: problem for problem in (*FEW, *ANY_SIZE)}


def names() -> list[str]:
    """The names of all problems, in the order of the collection."""
    return list(_BY_NAME)


def get(name: str, start_scale: float = 1.0) -> LeastSquaresProblem:
    """The problem called `name`, with its start multiplied by `start_scale`.

    Raises:
        ValueError: No problem has this name (the nearest is named), or the factor is out of range.
    """
    problem = named("least-squares problem", name, _BY_NAME, "problems.least_squares.names()")
    return replace(problem, start_scale=start_scale)


def all(start_scale: float = 1.0) -> list[LeastSquaresProblem]:
    """All problems, with their starts multiplied by `start_scale`.

    Examples:
        >>> from implicitly import problems
        >>> len(problems.least_squares.all())
        35
    """
    return [get(name, start_scale) for name in names()]


__all__ = ["LeastSquaresProblem", "all", "get", "names"]
