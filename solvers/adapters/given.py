"""A solution that somebody else has found, judged as every other is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..driving.demand import Demand, examinable
from ..driving.estimate import estimated
from ..interface.compiled_systems import NoDerivativeError
from ..interface.goal import Goal
from ..interface.norms import rms
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import RunOutcome, WholeSolver

_UNKNOWN = (
    "nothing is known of the error, because the equation gives no derivative or its linear equation is too "
    "large: Stopping(atol=...) or Stopping(atol_residual=...) judges the residual"
)


@dataclass(frozen=True)
class GivenSolution(WholeSolver):
    """The start is the solution: no step is taken, and the start is judged.

    With nothing given, or `rtol`, a system has converged where the estimate of the error says so: the step of
    Newton's method that is still missing is at most `rtol` times every unknown, or every equation is met to
    rounding. With `atol` or `atol_residual` the residual counts as in every solve. `rtol_residual` is
    relative to the residual at the start, which here is the solution, and so is refused. A system whose start
    is not finite ends with `NON_FINITE`. `implicit_function` uses it.

    Source: Dennis & Schnabel 1983, section 7.2 (the estimate of the error).

    Examples:
        >>> import torch, implicitly
        >>> from scipy.optimize import brentq
        >>> z0 = torch.tensor(brentq(lambda z: z**3 - 2, 0.0, 2.0), dtype=torch.float64)
        >>> solution = implicitly.root(lambda z: z**3 - 2, z0, solver=implicitly.GivenSolution())
        >>> bool(solution.converged), bool(solution.error < 1e-10), solution.steps.item()
        (True, True, 0)
    """

    needs: ClassVar[str] = "a solution"
    ends_itself: ClassVar[bool] = True
    judges_start: ClassVar[bool] = True

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        if goal.stopping.rtol_residual is not None:
            raise ValueError(
                "rtol_residual is relative to the residual at the start, and a given solution has no other "
                "start: give Stopping(rtol=...) for the error of z, or atol_residual for the residual"
            )
        norm = rms(residual).detach().cpu().numpy().astype(np.float64)
        met, error, reasons = _judged(problem, z, goal)
        met &= np.isfinite(norm)
        steps = np.zeros(len(norm), dtype=np.int64)
        codes = np.where(met, Status.CONVERGED, Status.STALLED)
        return RunOutcome(z, codes, steps, reasons, residual_norm=norm, error=error, final=True)


def _judged(
    problem: Problem, z: Tensor, goal: Goal
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """The systems whose error is small enough, the errors, and an account of the others."""
    demand = Demand.of(problem.dtype(z), goal.stopping)
    batch = z.shape[0]
    if goal.stopping.residual_alone:  # Then the limits decide, which the driver compares.
        return np.ones(batch, dtype=bool), np.full(batch, np.nan), {}
    try:
        estimate = (
            estimated(problem, z, problem.size(z), demand.xtol) if examinable(problem) else None
        )
    except NoDerivativeError:
        estimate = None
    if estimate is None:
        nothing = np.full(batch, np.nan)
        return np.zeros(batch, dtype=bool), nothing, dict.fromkeys(range(batch), _UNKNOWN)
    error = estimate.stated.cpu().numpy().astype(np.float64)
    met = demand.met(estimate, problem.form) & ~torch.isnan(estimate.stated)
    reasons = {
        system: _UNKNOWN if np.isnan(error[system]) else _account(error[system], demand.xtol)
        for system in np.flatnonzero(~met.cpu().numpy()).tolist()
    }
    return met.cpu().numpy(), error, reasons


def _account(error: float, xtol: float) -> str:
    return (
        f"the step of Newton's method from the given solution is {error:.1g} of an unknown, "
        f"{xtol:.1g} is accepted"
    )
