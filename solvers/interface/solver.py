"""The one interface of all solvers: an update rule that the driver steps, or a whole run."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from ...options.options import Options
from .goal import Goal
from .plain import PlainSteps
from .problem import Problem

# See `Solver.first_doubt`.
_FIRST_DOUBT = 8

LinearMap = Callable[[Tensor], Tensor]
"""A linear map on `(batch, n)` tensors."""

Transpose = Callable[[LinearMap], LinearMap | None]
"""From a linear map to its transpose, or `None` where that is not known."""


class State(Protocol):
    """The part of a solver's state that the driver reads.

    A state is a dataclass; every tensor in it has the systems of the batch along its first axis.
    Iterates are new tensors, never changed in place. A state may also have

    * `norm`, `(batch,)`: the norms of `residual`, if the solver knows them;
    * `end_status`, `(batch,)`: `Status` codes (0: in order) of systems for which it can do no more.
    """

    @property
    def z(self) -> Tensor:
        """The iterate, `(batch, n)`."""
        ...

    @property
    def residual(self) -> Tensor:
        """The residual at `z`, `(batch, n)`."""
        ...


@dataclass(frozen=True)
class Solver(Options, ABC):
    """A frozen set of options together with an update rule.

    A solver writes `init` and `step`; the driver (`solve`) owns stopping, the best iterate, status
    and failure. Within a step nothing may depend on another system of the batch.

    Class attributes:
        linear_only: The solver needs a linear equation.
        confirm_residual: The state's residual comes from a recursion, which rounding may take away
            from the truth; the driver confirms convergence with an evaluation.
        lazy_iterate: `state.norm` never increases and `state.z` is formed each time it is read
            (GMRES), or falls in units that change from step to step (ProjectedNewton); the driver reads `z`
            only when a system ends.
        ends_itself: The solver knows when it can do no more (`state.end_status`), and steps in which the
            residual does not fall are no sign of it.
        judges_start: The start is an answer to be judged: it may be anything, and is left as it is.
        keeps_bounds: Its iterates and trial points stay within `Problem.box`.
        has_inverse: Its states have `inverse(r)` and `inverse_transpose(r)`, products with an
            approximation of the inverse Jacobian.
        default_max_steps: The limit on steps where `Stopping.max_steps` is `None`.
        needs: The cost of a step, in words, for tables of solvers.
        suits: The equations that it is for, in words, for tables of solvers.
    """

    linear_only: ClassVar[bool] = False
    confirm_residual: ClassVar[bool] = False
    lazy_iterate: ClassVar[bool] = False
    ends_itself: ClassVar[bool] = False
    judges_start: ClassVar[bool] = False
    keeps_bounds: ClassVar[bool] = False
    has_inverse: ClassVar[bool] = False
    default_max_steps: ClassVar[int] = 200
    needs: ClassVar[str] = "evaluations"
    suits: ClassVar[str] = ""

    @property
    def keeps_batch(self) -> bool:
        """True if options refer to systems by their place, so that none may be dropped."""
        return False

    @property
    def most_patience(self) -> float:
        """Steps without progress after which the method makes none, if fewer than `Stopping.patience`."""
        return math.inf

    @property
    def first_doubt(self) -> int:
        """Steps without progress after which rounding may explain the residual, and again at 2×, 4×, …"""
        return _FIRST_DOUBT

    def for_derivative(self, transpose: Transpose | None) -> Solver | None:
        """The solver of a linear equation at the solution, by what this one knows of the Jacobian there.

        Args:
            transpose: Turns a linear map on `(batch, n)` tensors into its transpose, `None` where it has
                none, for an equation of the transposed Jacobian; `None` for one of the Jacobian itself.

        Returns:
            The solver; `None` if nothing that this one knows helps.
        """
        return None

    def plain_steps(self, problem: Problem, state: Any) -> PlainSteps | None:
        """The next steps, if they are plain ones that the driver may take by itself; else `None`."""
        return None

    @abstractmethod
    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> Any:
        """The state at the start `z`, whose residual is `residual`; both `(batch, n)`."""

    @abstractmethod
    def step(self, problem: Problem, state: Any) -> Any:
        """The state one step on. Tensors of the old state may be reused."""


@dataclass(frozen=True)
class RunOutcome:
    """Result of `WholeSolver.run`; one entry per system.

    Attributes:
        z: The last or best iterate, `(batch, n)`.
        status: `Status` codes, in the solver's own opinion: the driver evaluates the equation at
            `z` again and lets nothing but the residual count as convergence.
        steps: Steps in the solver's own sense.
        reasons: A library's account of systems that it did not solve, for error messages.
        residual_norm: Root-mean-square norms of the residual at `z`, for a solver whose parts are run by
            the driver itself; its status counts then as well. `None` to have them evaluated.
        error: Estimates of the relative error of `z`, where its parts have made them.
        final: The solver ended by a rule of its own; another run would change nothing.
        trace: Residual norms at every check, `(checks, batch)`, where `Goal.trace` asks for them.

    Examples:
        >>> import numpy as np, torch
        >>> from implicitly.solvers import Status
        >>> RunOutcome(torch.zeros(1, 1), np.array([Status.STALLED]), np.array([3])).steps.item()
        3
    """

    z: Tensor
    status: np.ndarray
    steps: np.ndarray
    reasons: Mapping[int, str] = field(default_factory=dict)
    residual_norm: np.ndarray | None = None
    error: np.ndarray | None = None
    final: bool = False
    trace: np.ndarray | None = None


@dataclass(frozen=True)
class WholeSolver(Solver):
    """A solver that runs its own iteration: an adapter to a library, or a solver made of solvers.

    It writes `run` in place of `init` and `step`. The driver judges what it returns as it does any
    iterate: residual, status, best of start and end. Having no steps to record, it cannot serve
    the gradient mode `Unrolled`.

    Examples:
        >>> import implicitly, numpy as np, torch
        >>> from implicitly.solvers import RunOutcome, Status, WholeSolver
        >>> class Known(WholeSolver):
        ...     def run(self, problem, z, residual, goal):
        ...         batch = z.shape[0]
        ...         return RunOutcome(0 * z + 2, np.full(batch, Status.CONVERGED), np.ones(batch))
        >>> z0 = torch.tensor([1.0, 5.0])
        >>> implicitly.root(lambda z: z * z - 4, z0, solver=Known(), batch_dims=1).status.tolist()
        [1, 1]
    """

    @abstractmethod
    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        """Solve from `z`, `(batch, n)`, whose residual is `residual`, as well as `goal` asks."""

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> Any:
        raise TypeError(self._no_steps())

    def step(self, problem: Problem, state: Any) -> Any:
        raise TypeError(self._no_steps())

    def _no_steps(self) -> str:
        return (
            f"{type(self).__name__} runs whole and has no steps that could be recorded: choose a "
            "solver with steps (Anderson, Broyden, Newton, ...), or a gradient mode other than Unrolled"
        )
