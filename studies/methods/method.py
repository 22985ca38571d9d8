"""Interface of a method, and the result of its attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..row import Family
from .equation import StudyEquation


@dataclass(frozen=True)
class Attempt:
    """Result of a method as the method reports it; the study rechecks it.

    Attributes:
        value: The unknown; `None` without a result.
        claimed: True if the method reports every system as solved.
        status: Its status, in a word.
        residual: The residual norm that it reports.
        evaluations: Values of the function; `None` for the number counted from outside.
        jvps: Products with the Jacobian; `None` for none.
        vjps: Products with its transpose.
        linear_iterations: Products inside of linear solves.
        steps: Number of its steps.
        reason: Its message about a failure.
        gradient_error: Relative error of its gradient, if one was requested.
    """

    value: Tensor | None
    claimed: bool
    status: str
    residual: float | None = None
    evaluations: int | None = None
    jvps: int | None = None
    vjps: int | None = None
    linear_iterations: int | None = None
    steps: int | None = None
    reason: str | None = None
    gradient_error: float | None = None


class Method(Protocol):
    """A method that solves equations.

    Attributes:
        label: The name it has in a report.
        family: Kind of the method.
        packages: Distributions whose versions matter to it, besides torch and NumPy.
    """

    @property
    def label(self) -> str: ...

    @property
    def family(self) -> Family: ...

    @property
    def packages(self) -> tuple[str, ...]: ...

    def solve(self, equation: StudyEquation) -> Attempt:
        """Solve from the equation's start, as well as the method can."""
        ...
