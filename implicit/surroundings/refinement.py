"""Refinement of a solution whose function computes in half precision under autocast.

The default tolerance in half precision, four units of rounding, can be met for every equation, but is coarse.
A network unrolled for many iterations comes to where its residual is rounding noise, several times closer. So
a solution that has been accepted is improved by some more steps in the wider dtype of the iterates.

A fixed point takes plain steps, as the network does. Their residual says little: all directions are noise
but a few that contract slowly, and what is left in these is small beside the noise and large once it is
multiplied by `(I − J)⁻¹`. A mean over several iterates is less noisy. The steps go on while the means of
successive blocks differ by more than the scatter inside a block explains: for `m` independent iterates of
variance `s²` by `2 s² / m` in the mean square.

Where plain steps do not contract, and for equations in another form, the solver goes on for as long as the
residual falls; its steps solve for slow directions as for others.
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
from ...solvers.interface.norms import rms
from ...solvers.interface.problem import Problem
from ...solvers.interface.stopping import DEFAULTS

_HALF = (torch.float16, torch.bfloat16)
# Of a fixed point the residual shall fall to this fraction of a unit of rounding of the iterate.
_OF_ITERATE = 1 / 8
# Of other equations, accepted at four units of its size at the start, to this fraction of where it is.
_OF_ACCEPTED = 1 / 4
_MOST_STEPS, _PATIENCE = 50, 6
# Plain steps in a block, and the most blocks.
_BLOCK, _MOST_BLOCKS = 8, 6
# Means of blocks that differ by so many times what their scatter explains still move; iterates depend on the
# ones before them, so that the scatter of the mean is larger than for independent ones.
_SCATTER = 2.5


def refines(problem: Problem, stopping: Stopping | None) -> bool:
    """True at the default tolerance, without limits, where a function computes in half precision."""
    rule = stopping or DEFAULTS
    given = not rule.is_default or rule.atol is not None or rule.limited
    return problem.precision in _HALF and not given


def refined(problem: Problem, solver: Solver, result: FlatSolution) -> FlatSolution:
    """The result, with better values where some more steps find them; the same statuses."""
    left = result.status == Status.CONVERGED
    if not left.any() or (result.residual_norm[left] == 0).all():
        return result
    problem.unpark()
    if problem.relative_to_iterate:
        settled, steps, good = _settled(problem, result)
        good = good & left
        result, left = _exchanged(result, settled, steps, good), left & ~good
    if not left.any():
        return result
    assert problem.precision is not None  # for the type checker: `refines` has seen it
    eps = torch.finfo(problem.precision).eps
    rtol = _OF_ITERATE * eps if problem.relative_to_iterate else _OF_ACCEPTED
    stopping = Stopping(rtol_residual=rtol, max_steps=_MOST_STEPS, patience=_PATIENCE)
    finer = solve(problem, _refiner(problem, solver), result.z, stopping)
    better = left & (finer.residual_norm < result.residual_norm)
    steps = np.where(left, finer.steps, 0)
    return _exchanged(result, finer, steps, better)


def _exchanged(
    result: FlatSolution, other: FlatSolution, steps: np.ndarray, which: np.ndarray
) -> FlatSolution:
    """The result, with `steps` more, and with the values of the other for the systems `which`."""
    column = torch.from_numpy(which).to(result.z.device).unsqueeze(1)
    return replace(
        result,
        z=torch.where(column, other.z, result.z),
        residual_norm=np.where(which, other.residual_norm, result.residual_norm),
        steps=result.steps + steps,
    )


def _settled(problem: Problem, result: FlatSolution) -> tuple[FlatSolution, np.ndarray, np.ndarray]:
    """Plain steps until the means of blocks stop moving.

    Returns:
        The iterates with their residuals, the steps taken, and the systems that came to rest.
    """
    z = at = result.z
    running = torch.ones_like(z[:, 0], dtype=torch.bool)
    steps, at_rest = torch.zeros_like(running, dtype=torch.int64), ~running
    before, drift_before = torch.zeros_like(z), torch.full_like(z[:, 0], torch.inf)
    for block in range(_MOST_BLOCKS):
        sums, squares = torch.zeros_like(z), torch.zeros_like(z)
        for _ in range(_BLOCK):
            z = z + problem.residual(z)
            sums += z - result.z
            squares += (z - result.z).square()
        mean = sums / _BLOCK
        scatter = (squares / _BLOCK - mean.square()).clamp(min=0).mean(dim=1)
        at = torch.where(running.unsqueeze(1), z, at)
        steps += _BLOCK * running
        if block:
            drift = rms(mean - before)
            still = drift <= _SCATTER * (2 * scatter / _BLOCK).sqrt()
            at_rest = torch.where(running, still | (drift < drift_before), at_rest)
            running = running & ~still & torch.isfinite(drift)
            drift_before = drift
        before = mean
        if not bool(running.any()):
            break
    norm = np.asarray(rms(problem.residual(at)).cpu().numpy(), dtype=np.float64)
    good = at_rest.cpu().numpy() & (norm <= result.threshold)
    return replace(result, z=at, residual_norm=norm), steps.cpu().numpy(), good


def _refiner(problem: Problem, solver: Solver) -> Solver:
    if problem.linear:
        return GMRES()
    if not isinstance(solver, WholeSolver):
        return solver
    return Anderson() if problem.form == "fixed_point" else NewtonKrylov()
