"""Refinement of a solution whose function computes in half precision under autocast.

The default tolerance in half precision, four units of rounding, can be met for every equation, but is coarse.
A network unrolled for many iterations comes to where its residual is rounding noise, several times closer. So
a solution that has been accepted is improved by some more steps, for as long as the residual falls. It is
computed in the wider dtype of the iterates, so that it can fall below a unit of rounding.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ...solvers import (
    GMRES,
    Anderson,
    FlatSolution,
    NewtonKrylov,
    Solver,
    Status,
    Stopping,
    WholeSolver,
)
from ...solvers.driving.driver import solve
from ...solvers.interface.problem import Problem

_HALF = (torch.float16, torch.bfloat16)
# Of a fixed point the residual shall fall to this fraction of a unit of rounding of the iterate.
_OF_ITERATE = 1 / 8
# Of other equations, accepted at four units of its size at the start, to this fraction of where it is.
_OF_ACCEPTED = 1 / 4
_MOST_STEPS, _PATIENCE = 50, 6


def refines(problem: Problem, stopping: Stopping | None) -> bool:
    """True at the default tolerance, without limits, where a function computes in half precision."""
    rule = stopping or Stopping()
    given = not rule.is_default or rule.atol is not None or rule.limited
    return problem.precision in _HALF and not given


def refined(problem: Problem, solver: Solver, result: FlatSolution) -> FlatSolution:
    """The result, with values of a smaller residual where some more steps find one; the same statuses."""
    accepted = result.status == Status.CONVERGED
    if not accepted.any() or (result.residual_norm[accepted] == 0).all():
        return result
    assert problem.precision is not None  # for the type checker: `refines` has seen it
    eps = torch.finfo(problem.precision).eps
    rtol = _OF_ITERATE * eps if problem.relative_to_iterate else _OF_ACCEPTED
    problem.unpark()
    stopping = Stopping(rtol_residual=rtol, max_steps=_MOST_STEPS, patience=_PATIENCE)
    finer = solve(problem, _refiner(problem, solver), result.z, stopping)
    better = accepted & (finer.residual_norm < result.residual_norm)
    column = torch.from_numpy(better).to(result.z.device).unsqueeze(1)
    return replace(
        result,
        z=torch.where(column, finer.z, result.z),
        residual_norm=np.where(better, finer.residual_norm, result.residual_norm),
        steps=np.where(accepted, result.steps + finer.steps, result.steps),
    )


def _refiner(problem: Problem, solver: Solver) -> Solver:
    if problem.linear:
        return GMRES()
    if not isinstance(solver, WholeSolver):
        return solver
    return Anderson() if problem.form == "fixed_point" else NewtonKrylov()
