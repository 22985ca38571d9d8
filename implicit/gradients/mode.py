"""What a gradient mode is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...options.options import Options
from ...solvers import Solver, Stopping
from ...solvers.interface.problem import Form
from ..equations.equation import Equation
from ..equations.layout import Leaves

if TYPE_CHECKING:
    from ..rule import Call, Outcome


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
    def solve_linear(self, call: Call, equation: Equation, args: Leaves) -> Leaves:
        """A (perhaps approximate) solution of the adjoint or tangent `equation`, differentiable."""


class TapedGradient(Gradient):
    """A mode that differentiates through iterations which follow or make up the solve."""

    @abstractmethod
    def record(self, call: Call, z0: Leaves, outcome: Outcome, args: Leaves) -> Leaves:
        """The value with the graph that is to be differentiated.

        Args:
            call: The call whose result this is.
            z0: The start.
            outcome: The result, detached.
            args: The arguments.
        """
