"""The result of a solve: a value, and for every system of the batch how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .showing import Systems, as_frame, as_html, described, drawn, has_numbers, in_a_line

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Status(IntEnum):
    """How the solve of one system ended; `message` says it in words.

    Examples:
        >>> Status.CONVERGED.message
        'the residual meets the tolerance'
    """

    RUNNING = 0
    CONVERGED = 1
    MAX_STEPS = 2
    STALLED = 3
    DIVERGED = 4
    NON_FINITE = 5
    LINEAR_SOLVE_FAILED = 6
    NO_SIGN_CHANGE = 7
    DISCONTINUITY = 8
    NOT_A_MINIMUM = 9
    UNBOUNDED = 10
    BLOCKED = 11
    INFEASIBLE = 12
    NO_QUALIFICATION = 13

    @property
    def message(self) -> str:
        return _MESSAGES[self]


_MESSAGES = {
    Status.RUNNING: "the solve has not ended",
    Status.CONVERGED: "the residual meets the tolerance",
    Status.MAX_STEPS: "the limit on steps or evaluations was reached first",
    Status.STALLED: "the residual stopped falling above the tolerance",
    Status.DIVERGED: "the residual grew beyond the divergence limit",
    Status.NON_FINITE: "the residual became NaN or infinite",
    Status.LINEAR_SOLVE_FAILED: "the linear equation of a step could not be solved",
    Status.NO_SIGN_CHANGE: "no bracket over which the residual changes its sign",
    Status.DISCONTINUITY: "the residual changes its sign at a pole or a jump, without a root",
    Status.NOT_A_MINIMUM: "the gradient vanishes at a saddle point or a maximum",
    Status.UNBOUNDED: "the objective falls without bound",
    Status.BLOCKED: "a bound keeps the residual from falling to zero: no root within the bounds is near",
    Status.INFEASIBLE: "the constraints contradict each other: their violation is at a minimum",
    Status.NO_QUALIFICATION: "active constraints depend on each other, so that multipliers may not exist",
}


@dataclass
class Counts:
    """Work done by a solve. One unit is one call on the whole batch.

    Attributes:
        evaluations: Values of the equation's function, or of its linear part.
        jvps: Products with the Jacobian.
        vjps: Products with its transpose.
        linear_iterations: Products with the Jacobian inside the linear solves of Newton–Krylov.

    Examples:
        >>> import torch, implicitly
        >>> solver = implicitly.FixedPointIteration()
        >>> solution = implicitly.fixed_point(torch.cos, torch.tensor(1.0), solver=solver)
        >>> solution.counts.evaluations == int(solution.steps) + 1
        True
    """

    evaluations: int = 0
    jvps: int = 0
    vjps: int = 0
    linear_iterations: int = 0

    @property
    def products(self) -> int:
        """Products with the Jacobian or its transpose."""
        return self.jvps + self.vjps


@dataclass(frozen=True, repr=False)
class Solution:
    """The outcome of solving an equation for a batch of independent systems.

    Attributes:
        value: The unknown, in the structure of `z0`: the converged iterate, or on failure the
            iterate with the smallest residual that was seen.
        status: Integer tensor of `Status` codes with one entry per system (shape `batch`).
        residual_norm: Root-mean-square norm of the residual *of `value`*, one entry per system.
        steps: Solver steps that each system took, one entry per system.
        error: Estimate of the relative error of `value`, one entry per system: the largest part of an
            unknown that a further Newton step would change. NaN where nothing is known of it.
        counts: Evaluations of the equation, JVPs, VJPs and linear iterations, on the whole batch.
        trace: With `trace=True`, an array `(checks, systems)` of residual norms; else `None`.
        adjoints: Solutions of the adjoint (or tangent) equations that derivatives of `value`
            have solved: entry `k` is the newest of order `k + 1`. Their values are tuples of the
            leaves of `value`'s structure.
        aux: With `has_aux=True`, the auxiliary output of the function at `value`; else `None`.
        bounds: With `bounds`, the ones on which `value` lies, and whether derivatives are one-sided there
            (`ActiveBounds`); else `None`.
        history: With `history=True`, the detached iterates of all checks, in the structure of `value`.

    Examples:
        >>> import torch, implicitly
        >>> solution = implicitly.fixed_point(torch.cos, torch.tensor(1.0, dtype=torch.float64))
        >>> round(float(solution.value), 9), bool(solution.converged)
        (0.739085133, True)
        >>> str(solution).startswith("Solution: solved after")
        True
    """

    value: Any
    status: Tensor
    residual_norm: Tensor
    steps: Tensor
    error: Tensor
    counts: Counts
    trace: np.ndarray | None = None
    adjoints: list[Solution] = field(default_factory=list)
    aux: Any = None
    history: list[Any] | None = None
    bounds: Any = None

    @property
    def converged(self) -> Tensor:
        """Boolean tensor, one entry per system."""
        return self.status == Status.CONVERGED

    @property
    def evaluations(self) -> int:
        """Evaluations of the equation, on the whole batch."""
        return self.counts.evaluations

    def _systems(self) -> Systems:
        codes, norms, errors, steps = (
            part.detach().cpu().flatten()
            for part in (self.status, self.residual_norm, self.error, self.steps)
        )
        ends = [Status(code).name for code in codes.tolist()]
        return Systems(
            ends, (codes == Status.CONVERGED).numpy(), norms.double().numpy(),
            errors.double().numpy(), steps.numpy(), tuple(self.status.shape),
        )  # fmt: skip

    def __repr__(self) -> str:
        value = f"value: {described(self.value)}"
        if not has_numbers(self.status):  # Inside of a transform or a trace.
            return f"Solution: {value}"
        work = f"{self.counts.evaluations} evaluations"
        if self.counts.products:
            work += f", {self.counts.products} products"
        return f"Solution: {in_a_line(self._systems(), work)}; {value}"

    def _repr_html_(self) -> str:
        return as_html(repr(self), self._systems() if has_numbers(self.status) else None)

    def to_pandas(self) -> pd.DataFrame:
        """A row for each system: status, converged, residual norm, error and steps.

        Raises:
            ImportError: Pandas is missing (extra `studies`).

        Examples:
            >>> import torch, implicitly
            >>> a = torch.tensor([2.0, 9.0], dtype=torch.float64)
            >>> solution = implicitly.root(lambda z: z**2 - a, torch.ones_like(a), batch_dims=1)
            >>> solution.to_pandas().status.tolist()
            ['CONVERGED', 'CONVERGED']
        """
        return as_frame(self._systems())

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the residual norms of all checks, which a solve with `trace=True` keeps.

        Args:
            axes: Axes to draw in; `None` for a new figure.

        Raises:
            ValueError: The solve kept no trace.
            ImportError: Matplotlib is missing (extra `figures`).
        """
        return drawn(self.trace, axes)

    def detach(self) -> Solution:
        """The same solution with `value` and `aux` detached from the autograd graph."""
        from torch.utils._pytree import tree_map_only

        if isinstance(self.value, torch.Tensor):
            value = self.value.detach()
        else:
            value = tree_map_only(torch.Tensor, torch.Tensor.detach, self.value)
        aux = self.aux
        if aux is not None:
            aux = tree_map_only(torch.Tensor, torch.Tensor.detach, aux)
        return Solution(
            value,
            self.status,
            self.residual_norm,
            self.steps,
            self.error,
            self.counts,
            self.trace,
            self.adjoints,
            aux,
            self.history,
            self.bounds,
        )


@dataclass(frozen=True)
class FlatSolution:
    """The result of `solve` on flat tensors; arrays have one entry per system.

    Attributes:
        z: The converged iterates, or on failure those with the smallest residual, `(batch, n)`.
        status: `Status` codes.
        residual_norm: Root-mean-square norms of the residuals at `z`.
        steps: Steps that each system took.
        best_step: The step that reached the iterate which is returned; on failure not the last.
        threshold: The largest norm that would have counted as converged there.
        error: Estimates of the relative error of `z`; NaN where nothing is known of it.
        counts: Work on the whole batch.
        trace: Residual norms at every check, `(checks, batch)`, or `None`.
        reasons: The account that a library gives of systems that it did not solve.

    Examples:
        >>> from implicitly.solvers import NeumannSeries, Problem, solve
        >>> problem = Problem(lambda z: 0.5 * z + 1, operator=lambda v: 0.5 * v)
        >>> result = solve(problem, NeumannSeries(), torch.zeros(3, 1))
        >>> result.z.flatten().round(decimals=4).tolist(), result.status.tolist()
        ([2.0, 2.0, 2.0], [1, 1, 1])
    """

    z: Tensor
    status: np.ndarray
    residual_norm: np.ndarray
    steps: np.ndarray
    best_step: np.ndarray
    threshold: np.ndarray
    error: np.ndarray
    counts: Counts
    trace: np.ndarray | None
    reasons: Mapping[int, str] = field(default_factory=dict)


class SolveError(RuntimeError):
    """Some system of a batch was not solved and the failure policy is `"raise"`.

    Attributes:
        solution: The `Solution` with the best iterate of every system.
    """

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution


class SolveWarning(UserWarning):
    """Some system of a batch was not solved and the failure policy is `"warn"`."""


class DomainError(ValueError):
    """Raise it in a function that has no value at a point: a solver then takes another point.

    Any exception does the same but for errors of the program (`TypeError`, `AttributeError`, shapes that do
    not fit, ...); this one says that it is meant. At the start it ends the call.

    Examples:
        >>> import math, torch, implicitly
        >>> def F(z):
        ...     if z.item() <= 0:
        ...         raise implicitly.DomainError("the logarithm needs z > 0")
        ...     return z.log() + 0.1 * z
        >>> bool(implicitly.root(F, torch.tensor(20.0)).converged)
        True
    """
