"""Problems with curves by name, for the tests of curves."""

from __future__ import annotations

from typing import Any

from implicitly import problems
from implicitly.problems import CurveProblem


def curve_problem(name: str, **parameters: Any) -> CurveProblem:
    problem = problems.get(name, **parameters)
    assert isinstance(problem, CurveProblem)
    return problem
