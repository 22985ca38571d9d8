"""Newton's method in compiled code for many small systems, in parallel on all cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...options.options import is_integer
from ..interface.check import Check
from ..interface.compiled_systems import CompiledSystems, in_blocks
from ..interface.goal import Goal
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import RunOutcome, WholeSolver

_UNLIMITED = 2**62


@dataclass(frozen=True)
class NumbaRoot(WholeSolver):
    """Newton's method with dense LU for the systems of a `NumbaEquation`, compiled and parallel.

    The Jacobian is the one given with the equation, or forward differences. Broyden's update keeps its
    inverse from step to step for as long as each full step at least halves the residual. Then the
    Jacobian is formed again, and the step is shortened until the residual falls. If that fails, or the
    Jacobian is singular, a step of Levenberg's regularised least squares is tried; if it fails too, the
    system stalls. Systems are solved in float64, one by one, on as many threads as torch uses
    (`torch.set_num_threads`).

    Attributes:
        max_updates: Steps for which a Jacobian is updated and kept; 0 for Newton's method.
        max_trials: Trial lengths of one search.

    Raises:
        ValueError: An option is not an integer in its range.
        TypeError: The equation that is to be solved is not a `NumbaEquation`.

    Source: Broyden 1965; Dennis & Schnabel 1983, sections 5.4 (differences), 6.3 (line search)
    and 8.2 (updates of the inverse); Levenberg 1944.

    Examples:
        >>> import numba, torch, implicitly
        >>> @numba.njit
        ... def square(z, p, out):
        ...     out[0] = z[0] ** 2 - p[0]
        >>> equation = implicitly.NumbaEquation(square, n=1)
        >>> z0, p = torch.ones(3, 1).double(), torch.tensor([[1.0], [4.0], [9.0]]).double()
        >>> solver = implicitly.NumbaRoot()
        >>> solution = implicitly.root(equation, z0, p, solver=solver, batch_dims=1)
        >>> solution.value.flatten().round(decimals=6).tolist()
        [1.0, 2.0, 3.0]
    """

    max_updates: int = 10
    max_trials: int = 20
    needs: ClassVar[str] = "a function for Numba"
    suits: ClassVar[str] = "very many systems of few unknowns, in compiled parallel code"

    default_max_steps: ClassVar[int] = 100

    def __post_init__(self) -> None:
        for name, least in (("max_updates", 0), ("max_trials", 1)):
            value = getattr(self, name)
            if not is_integer(value, least):
                raise ValueError(f"{name} must be an integer ≥ {least}, got {value!r}")

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        if problem.compiled is None:
            raise TypeError(
                "NumbaRoot solves the systems of a NumbaEquation: give root() or fixed_point() the "
                "equation itself, NumbaEquation(function, n=...), with z0 of shape (*batch, n) and "
                "batch_dims=len(batch); for any other equation use Newton() or NewtonKrylov(), "
                "for an adjoint DenseLU()"
            )
        if goal.callback is not None and goal.callback(_start(z, residual)):
            still = np.zeros(z.shape[0], dtype=np.int64)
            return RunOutcome(z, still, still)
        systems = problem.compiled()
        batch, n = z.shape
        left = min(goal.budget.evaluations_left, _UNLIMITED)
        limits = np.array([goal.budget.steps, left, self.max_updates, self.max_trials], np.int64)
        # A residual in float32 has too few digits for differences: compute it again in float64.
        known = residual.dtype == torch.float64
        values, residuals, tolerances = (
            _float64(z).copy(),
            _float64(residual).copy(),
            _tolerances(goal, z),
        )
        counters = np.zeros((batch, 4), dtype=np.int32)
        kernel, workspace = _kernel(systems, problem.form)

        def work(start: int, stop: int) -> None:
            kernel(
                values, systems.parameters, residuals, known, tolerances, limits, counters, start, stop,
                *workspace(),
            )  # fmt: skip

        in_blocks(work, batch)
        status, steps, evaluations, jacobians = counters.T
        problem.counts.evaluations += int(evaluations.max(initial=0))
        problem.counts.jvps += n * int(jacobians.max(initial=0))
        value = torch.from_numpy(values).to(z)
        if value.dtype != torch.float64:
            return RunOutcome(value, status, steps)
        # The kernel leaves the residuals at the values in `residuals`.
        return RunOutcome(value, status, steps, residual_norm=_norms(residuals))


def _start(z: Tensor, residual: Tensor) -> Check:
    running = np.full(z.shape[0], int(Status.RUNNING), dtype=np.int8)
    return Check(0, _norms(_float64(residual)), running, lambda: z)


def _kernel(systems: CompiledSystems, form: str) -> Any:
    # Numba takes longer to import than the package.
    if systems.n == 1:
        from .numba_scalar import kernel
    else:
        from .numba_dense import kernel
    return kernel(systems.function, systems.jacobian, systems.n, form)


def _tolerances(goal: Goal, z: Tensor) -> np.ndarray:
    """The `a` and `b` of each system, `(batch, 2)`, for which `‖r‖ ≤ a + b ‖z‖` is the goal."""
    rows = np.zeros((z.shape[0], 2))
    if goal.reference is None:
        rows[:, 0], rows[:, 1] = goal.tolerance.atol, goal.tolerance.rtol
    else:
        rows[:, 0] = _float64(goal.threshold(z))
    return rows


def _float64(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).contiguous().numpy()


def _norms(residual: np.ndarray) -> np.ndarray:
    if residual.shape[1] == 1:
        return np.abs(residual[:, 0])
    return np.asarray(np.sqrt(np.mean(residual**2, axis=1)))
