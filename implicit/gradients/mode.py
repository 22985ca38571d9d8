"""Base classes of gradient modes, and protocols for the parts of a call that a mode sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ...options.options import Options
from ...solvers import Solver, Stopping
from ...solvers.interface.problem import Form
from ..calls.outcome import CallOutcome, Record
from ..equations.derived import DerivedEquation
from ..equations.equation import Equation
from ..equations.layout import Leaves


class LinearSolve(Protocol):
    """An adjoint or tangent equation at a solution, to be solved by a gradient mode."""

    @property
    def equation(self) -> DerivedEquation:
        """The linear equation; `equation.parent` is the one whose solution is differentiated."""
        ...

    @property
    def args(self) -> Leaves:
        """The arguments of `equation`."""
        ...

    @property
    def solver(self) -> Solver:
        """The solver that solved the parent."""
        ...

    @property
    def record(self) -> Record:
        """The record of the call that solved the parent."""
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
        """The start; it may be part of a graph."""
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
        """The record of the call."""
        ...


@dataclass(frozen=True)
class Gradient(Options, ABC):
    """A gradient mode: the way in which derivatives of a solution are formed.

    Class attributes:
        exact: Derivatives equal those of the solution, up to a tolerance.
        keeps_inverse: The call keeps the approximate inverse Jacobian of its solver.
        records_steps: Autograd records the steps of the solver, so that a `WholeSolver` cannot serve.

    Examples:
        >>> import implicitly
        >>> implicitly.Exact.exact, implicitly.Phantom.exact
        (True, False)
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
    """A mode that needs only the result of the solve: it saves the memory of one iterate."""

    @property
    def compiled(self) -> tuple[Solver, Stopping | None] | None:
        """The solver in a compiled graph that solves adjoints, and its rule; `None` for another way."""
        return None

    @property
    def by_factors(self) -> bool:
        """True if adjoints of small systems are solved to rounding, by factors of their Jacobians."""
        return False

    @abstractmethod
    def solve_linear(self, linear: LinearSolve) -> Leaves:
        """A differentiable solution, exact or approximate, of the adjoint or tangent equation."""


class TapedGradient(Gradient):
    """A mode that differentiates through iterations: those of the solve, or further ones."""

    compiled: ClassVar[None] = None
    by_factors: ClassVar[bool] = False

    @abstractmethod
    def record(self, recording: Recording) -> Leaves:
        """The value with the graph that is to be differentiated."""
