"""A gradient mode, and the little that one sees of the call which it differentiates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ...options.options import Options
from ...solvers import Solver, Stopping
from ...solvers.interface.problem import Form
from ..equations.derived import DerivedEquation
from ..equations.equation import Equation
from ..equations.layout import Leaves
from ..outcome import CallOutcome, Record


class LinearSolve(Protocol):
    """An adjoint or tangent equation at a solution, waiting to be solved."""

    @property
    def equation(self) -> DerivedEquation:
        """The linear equation; `equation.parent` is the one whose solution is differentiated."""
        ...

    @property
    def args(self) -> Leaves:
        """The arguments of `equation`."""
        ...

    @property
    def record(self) -> Record:
        """What the call of the parent left behind."""
        ...

    def solve(
        self,
        solver: Solver,
        stopping: Stopping | None,
        start: Leaves | None = None,
        *,
        accept_failure: bool = False,
    ) -> Leaves:
        """The solution by `solver`, differentiable, from `start` or from zero."""
        ...


class Recording(Protocol):
    """A solve whose iterations are to be recorded by autograd."""

    @property
    def equation(self) -> Equation:
        """The equation that was solved."""
        ...

    @property
    def solver(self) -> Solver:
        """The solver that found the solution."""
        ...

    @property
    def start(self) -> Leaves:
        """The start, in whose graph it may stand."""
        ...

    @property
    def args(self) -> Leaves:
        """The arguments of `equation`."""
        ...

    @property
    def outcome(self) -> CallOutcome:
        """The result, detached."""
        ...

    @property
    def record(self) -> Record:
        """What the call left behind."""
        ...


@dataclass(frozen=True)
class Gradient(Options, ABC):
    """A gradient mode.

    Class attributes:
        exact: Derivatives equal those of the solution, up to a tolerance.
        keeps_inverse: The approximate inverse Jacobian that the solver has learnt is kept.
        records_steps: The steps of the solver are recorded, which must therefore have some.
    """

    exact: ClassVar[bool] = False
    keeps_inverse: ClassVar[bool] = False
    records_steps: ClassVar[bool] = False

    def adapt(
        self, form: Form, solver: Solver | None, stopping: Stopping | None
    ) -> tuple[Solver | None, Stopping | None]:
        """The solver and stopping rule of a call with this mode, from those asked for.

        Raises:
            TypeError: The mode cannot be used with them.
        """
        return solver, stopping


class ImplicitGradient(Gradient):
    """A mode that needs nothing of the solve but its result: saved memory is that of one iterate."""

    @abstractmethod
    def solve_linear(self, linear: LinearSolve) -> Leaves:
        """A (perhaps approximate) solution of the adjoint or tangent equation, differentiable."""


class TapedGradient(Gradient):
    """A mode that differentiates through iterations which follow or make up the solve."""

    @abstractmethod
    def record(self, recording: Recording) -> Leaves:
        """The value with the graph that is to be differentiated."""
