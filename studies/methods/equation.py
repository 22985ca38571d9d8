"""Equation of a cell as a method gets it; every evaluation is counted, watched and limited."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from ...problems import TestProblem

# A point enters the history once the residual is below this fraction of that of the last point.
_WORTH_KEEPING = 0.9


class BudgetSpentError(RuntimeError):
    """A method requested more evaluations than the cell allows."""


@dataclass
class Watch:
    """Record of a method's evaluations, taken from outside of it.

    Attributes:
        limit: Evaluations after which the next one raises `BudgetSpentError`; `None` for no limit.
        evaluations: Evaluations so far.
        history: Number of evaluations and smallest residual, at points where it fell.
    """

    limit: int | None = None
    evaluations: int = 0
    smallest: float = float("inf")
    history: list[tuple[int, float]] = field(default_factory=list)

    def see(self, residual: Tensor) -> None:
        """Record an evaluation with this residual."""
        self.evaluations += 1
        if self.limit is not None and self.evaluations > self.limit:
            raise BudgetSpentError(f"more than {self.limit} evaluations were asked for")
        largest = float(residual.detach().abs().max())
        if not largest < self.smallest:
            return
        self.smallest = largest
        if not self.history or largest <= _WORTH_KEEPING * self.history[-1][1]:
            self.history.append((self.evaluations, largest))

    def ended(self) -> list[tuple[int, float]]:
        """The history, with the smallest residual at its end."""
        if self.history and self.history[-1][1] > self.smallest:
            return [*self.history, (self.evaluations, self.smallest)]
        return self.history


@dataclass(frozen=True)
class StudyEquation:
    """A problem at one size, with start, target and limit, for a method to solve.

    Attributes:
        problem: The problem.
        z0: The start, `(*batch_shape, n)`.
        target: The largest entry of the residual that counts as solved.
        limit: Evaluations that a method may use.
        args: Parameters as tensors, for methods that differentiate; empty for the problem's own.
        watch: Records every evaluation; `None` in timed runs.
    """

    problem: TestProblem
    z0: Tensor
    target: float
    limit: int
    args: tuple[Tensor, ...] = ()
    watch: Watch | None = None

    def function(self, z: Tensor, *args: Tensor) -> Tensor:
        """`F(z)` of a root, `f(z)` of a fixed point."""
        value = self.problem.function(z, *args)
        if self.watch is not None:
            self.watch.see(value - z if self.problem.form == "fixed_point" else value)
        return value

    def residual(self, z: Tensor, *args: Tensor) -> Tensor:
        """`F(z)` of a root, `f(z) − z` of a fixed point; one evaluation."""
        value = self.function(z, *args)
        return value - z if self.problem.form == "fixed_point" else value

    @property
    def unwatched(self) -> StudyEquation:
        """The same equation without a watch, for timed runs."""
        return replace(self, watch=None)
