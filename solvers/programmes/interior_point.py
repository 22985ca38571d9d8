"""`InteriorPoint`: convex quadratic programmes as the solver of their conditions of optimality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..driving.demand import Demand
from ..interface.goal import Goal
from ..interface.norms import rms
from ..interface.problem import Problem
from ..interface.programme import Programme
from ..interface.solution import Status
from ..interface.solver import RunOutcome, WholeSolver
from .certificates import without_solution
from .solving import minimisers


@dataclass(frozen=True)
class InteriorPoint(WholeSolver):
    """Mehrotra's interior-point method for convex quadratic programmes, all of a batch at once.

    The equation is the mixed complementarity problem of `quadratic_programme`. All is done in float64,
    whatever the dtype of the equation is, and ends with the exact solution on the active set, in which
    multipliers of inactive inequalities are zero. Strictly convex programmes are mostly solved by block
    pivoting on their dual; the interior-point method is for the others, and its steps are those of the
    solution. A programme that is not solved is examined: `INFEASIBLE` and `UNBOUNDED` rest on certificates.

    Raises:
        TypeError: Used for another equation.

    Source: Mehrotra 1992; Nocedal & Wright 2006, algorithm 16.4; Júdice & Pires 1994.

    Examples:
        >>> import torch, implicitly
        >>> I, one = torch.eye(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        >>> found = implicitly.quadratic_programme(I, -3 * one, G=I, h=one, solver=InteriorPoint()).value
        >>> found.z.item(), found.inequality.item()
        (1.0, 2.0)
    """

    needs: ClassVar[str] = "a convex quadratic programme"
    suits: ClassVar[str] = "quadratic programmes: the default there"
    ends_itself: ClassVar[bool] = True
    keeps_bounds: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 60

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        if problem.programme is None:
            raise TypeError(
                "InteriorPoint solves the conditions of quadratic_programme, and this equation is another: "
                "leave solver out, or give one of equations such as ProjectedNewton()"
            )
        programme = Programme(*(part.double() for part in problem.programme()))
        limit = int(min(goal.budget.steps, self.default_max_steps))
        found, steps = minimisers(programme, limit)
        value = torch.cat(found.at, dim=1).to(z.dtype)
        value = torch.where(torch.isfinite(value).all(dim=1, keepdim=True), value, z)
        error = torch.where(found.settled, found.error.clamp(min=problem.eps(z)), torch.nan)
        demand = Demand.of(problem.dtype(z), goal.stopping)
        met = found.settled & (found.error <= demand.xtol)
        status = torch.where(met, int(Status.CONVERGED), int(Status.STALLED))
        cut = ~met & (steps >= limit) if limit < self.default_max_steps else ~met & False
        status = torch.where(cut, int(Status.MAX_STEPS), status)
        failed = (~met & ~cut).nonzero().flatten()
        if len(failed):
            reasons = without_solution(programme.take(failed), self.default_max_steps)
            status = status.index_copy(0, failed, torch.where(reasons > 0, reasons, status[failed]))
        norm = rms(problem.residual(value)).detach()
        return RunOutcome(
            value,
            status.cpu().numpy(),
            steps.cpu().numpy(),
            residual_norm=norm.cpu().numpy().astype(np.float64),
            error=error.cpu().numpy(),
            final=True,
        )
