"""Registry of test problems by name and by tag."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from ..options.text import nearest
from .problem import TestProblem

Class = TypeVar("Class", bound=type[TestProblem])
T = TypeVar("T")

_CLASSES: dict[str, type[TestProblem]] = {}


def register(problem: Class) -> Class:
    """Register a class of test problems by its name; usable as a decorator.

    Raises:
        TypeError: The class is not a complete subclass of `TestProblem`.
        ValueError: Another class has the name.

    Examples:
        >>> import torch
        >>> from implicitly import problems
        >>> @problems.register
        ... class Cube(problems.TestProblem):
        ...     name, standard_size, sizes, source = "cube", 1, "1", "x³ = 2"
        ...     def function(self, z):
        ...         return z**3 - 2
        ...     def first(self, n):
        ...         return [1.0]
        >>> problems.get("cube").residual(torch.tensor([2.0])).tolist()
        [6.0]
    """
    if not (isinstance(problem, type) and issubclass(problem, TestProblem)):
        raise TypeError(f"register takes a subclass of TestProblem, got {problem!r}")
    if inspect.isabstract(problem):
        missing = ", ".join(sorted(problem.__abstractmethods__))
        raise TypeError(f"{problem.__name__} does not define {missing}")
    for attribute in ("name", "source", "standard_size", "sizes"):
        if not hasattr(problem, attribute):
            raise TypeError(f"{problem.__name__} does not define {attribute}")
    taken = _CLASSES.get(problem.name)
    if taken is not None and taken.__qualname__ != problem.__qualname__:
        raise ValueError(f"the name {problem.name!r} is taken by {taken.__name__}")
    _CLASSES[problem.name] = problem
    return problem


def get(name: str, **parameters: Any) -> TestProblem:
    """The problem called `name`, with `parameters` in place of its defaults.

    Raises:
        ValueError: No problem has this name (the nearest is named), or a parameter is out of range.
        TypeError: The problem has no such parameter.

    Examples:
        >>> from implicitly import problems
        >>> problems.get("chandrasekhar-h", c=0.5)
        ChandrasekharH(start_scale=1.0, c=0.5)
    """
    return named("problem", name, _CLASSES, "problems.names()")(**parameters)


def all(tag: str | None = None) -> list[TestProblem]:
    """All problems, or those with `tag`, with their default parameters, in the order of `names`.

    Raises:
        ValueError: No problem has this tag (the nearest is named).

    Examples:
        >>> from implicitly import problems
        >>> len(problems.all(tag="classical"))
        23
    """
    return [_CLASSES[name]() for name in names(tag)]


def names(tag: str | None = None) -> list[str]:
    """The names of all problems, or of those with `tag`; the classical ones in the literature's order.

    Raises:
        ValueError: No problem has this tag (the nearest is named).

    Examples:
        >>> from implicitly import problems
        >>> problems.names(tag="classical")[:3]
        ['generalised-rosenbrock', 'powell-singular', 'powell-badly-scaled']
    """
    if tag is None:
        return list(_CLASSES)
    if tag not in tags():
        unknown("tag", tag, tags(), "problems.tags()")
    return [name for name, problem in _CLASSES.items() if tag in problem.tags]


def tags() -> list[str]:
    """All tags of problems.

    Examples:
        >>> from implicitly import problems
        >>> "classical" in problems.tags()
        True
    """
    return sorted({tag for problem in _CLASSES.values() for tag in problem.tags})


def named(kind: str, given: str, by_name: Mapping[str, T], where: str) -> T:
    """The entry of a name; a `ValueError` names the nearest where there is none."""
    if given not in by_name:
        unknown(kind, given, by_name, where)
    return by_name[given]


def unknown(kind: str, given: object, valid: Iterable[str], where: str) -> NoReturn:
    """Raise a `ValueError` that names the nearest valid name."""
    raise ValueError(f"no {kind} is called {given!r}{nearest(given, valid)}; {where} lists them")
