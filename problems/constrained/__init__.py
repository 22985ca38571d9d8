"""Minima with equations, inequalities and bounds as constraints, by name."""

from __future__ import annotations

from ..registry import named
from .hock_schittkowski import HOCK_SCHITTKOWSKI
from .problem import ConstrainedProblem

_BY_NAME = {problem.name: problem for problem in HOCK_SCHITTKOWSKI}


def names() -> list[str]:
    """The names of all problems."""
    return list(_BY_NAME)


def get(name: str) -> ConstrainedProblem:
    """The problem called `name`.

    Raises:
        ValueError: No problem has this name; the nearest is named.
    """
    return named("problem with constraints", name, _BY_NAME, "problems.constrained.names()")


def all() -> list[ConstrainedProblem]:
    """All problems.

    Examples:
        >>> from implicitly import problems
        >>> len(problems.constrained.all())
        13
    """
    return list(_BY_NAME.values())


__all__ = ["ConstrainedProblem", "all", "get", "names"]
