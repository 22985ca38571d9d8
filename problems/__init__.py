"""Equations with known answers, by name: classical test problems, scalable ones, generators.

`problems.get("powell-singular")` returns one, `problems.all(tag="classical")` many, and
`problems.names()` all names. A problem has a `residual`, a standard `start` and every known solution
(`roots`).
"""

from . import applications, bounded, classical, constrained, curves, generators, least_squares
from .curves import CurveProblem
from .problem import Root, TestProblem
from .registry import all, get, names, register, tags

__all__ = [
    "CurveProblem",
    "Root",
    "TestProblem",
    "all",
    "applications",
    "bounded",
    "classical",
    "constrained",
    "curves",
    "generators",
    "get",
    "least_squares",
    "names",
    "register",
    "tags",
]
