"""Problems with bounds on the unknowns, by name: equations, minima, least squares and complementarity."""

from __future__ import annotations

from ..registry import named
from .complementary import COMPLEMENTARY
from .equations import EQUATIONS
from .minima import MINIMA
from .problem import BoundedProblem

_BY_NAME = {problem.name: problem for problem in (*EQUATIONS, *MINIMA, *COMPLEMENTARY)}


def names() -> list[str]:
    """The names of all problems."""
    return list(_BY_NAME)


def get(name: str) -> BoundedProblem:
    """The problem called `name`.

    Raises:
        ValueError: No problem has this name; the nearest is named.
    """
    return named("problem with bounds", name, _BY_NAME, "problems.bounded.names()")


def all() -> list[BoundedProblem]:
    """All problems.

    Examples:
        >>> from implicitly import problems
        >>> len(problems.bounded.all())
        12
    """
    return list(_BY_NAME.values())


__all__ = ["BoundedProblem", "all", "get", "names"]
