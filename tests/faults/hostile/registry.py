"""Registry of the acts of hostile cells, and the answer of a cell that has come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from implicitly.studies.methods import Attempt, StudyEquation

Act = Callable[[StudyEquation], Any]
ACTS: dict[str, Act] = {}


def act(function: Act) -> Act:
    """Register an act under its name."""
    ACTS[function.__name__.replace("_", "-")] = function
    return function


def answer(equation: StudyEquation, **other: Any) -> Attempt:
    """The answer of a cell that does not claim to have solved anything."""
    return Attempt(equation.z0, **{"claimed": False, "status": "back", **other})
