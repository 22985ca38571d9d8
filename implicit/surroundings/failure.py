"""Failure policy of a call: the message, and raising, warning or accepting."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...solvers import FlatSolution, Problem, Solution, SolveError, Solver, SolveWarning, Status
from ...solvers.composed.edges import derivative_not_finite

FailurePolicy = Literal["raise", "warn", "accept"]
POLICIES = ("raise", "warn", "accept")

_LISTED = 5
_EDGE = (
    "the value is finite and its derivative in the unknown is not: an operation has a NaN or infinite one "
    "there, as sqrt at 0, or in the branch of torch.where that is not taken"
)
ADVICE = {
    Status.MAX_STEPS: "allow more steps (Stopping(max_steps=...)) or loosen the tolerance "
    "(Stopping(rtol=...)), or use a faster solver",
    Status.STALLED: "loosen the tolerance if the residual is at the rounding level of the dtype, else "
    "use another solver or start",
    Status.DIVERGED: "use a solver that needs no contraction (Broyden, NewtonKrylov), damping, or a "
    "better start",
    Status.NON_FINITE: "check the equation for overflow and for values outside its domain",
    Status.LINEAR_SOLVE_FAILED: "the Jacobian may be singular there: use another linear solver or start",
    Status.DISCONTINUITY: "check the equation for a pole or a jump inside of the bracket, and give a bracket "
    "without one",
    Status.NOT_A_MINIMUM: "start elsewhere, off the points at which the gradient vanishes by symmetry",
    Status.UNBOUNDED: "check the sign of the objective, and bound it from below",
    Status.BLOCKED: "check that the problem has a root within the bounds, start elsewhere, or call "
    "least_squares(bounds=...) for the point where the residual is least",
    Status.INFEASIBLE: "check that a point meets all constraints, or start near one",
    Status.NO_QUALIFICATION: "leave out constraints that follow from others, and write an equation as "
    "one that has a gradient where it holds",
    Status.NO_SIGN_CHANGE: "give Bracketing(lower=..., upper=...) whose ends have residuals of different "
    "signs and hold the start, or use a solver that needs no bracket",
}


def check_start(described: str, z: Tensor, status: np.ndarray, steps: np.ndarray) -> None:
    """Raise a `ValueError` if a system that failed, or never moved, has a start that is not finite.

    Only failed systems are checked: with a non-finite start none can succeed.
    """
    suspects = (status != Status.CONVERGED) | (steps == 0)
    if not suspects.any():
        return
    finite = torch.isfinite(z).all(dim=1).cpu().numpy()
    wrong = np.flatnonzero(suspects & ~finite)
    if len(wrong):
        raise ValueError(
            f"z0 must be finite, but the start of {described} has NaN or infinite entries in "
            f"{len(wrong)} of {len(status)} systems (first: system {wrong[0]})"
        )


def with_edges_named(problem: Problem, result: FlatSolution) -> FlatSolution:
    """The result, with a reason for failed systems with a finite residual whose derivative is not."""
    problem.unpark()
    suspects = (result.status != Status.CONVERGED) & np.isfinite(result.residual_norm)
    edges = np.flatnonzero(suspects & derivative_not_finite(problem, result.z))
    if len(edges) == 0:
        return result
    before = result.reasons
    named = {i: f"{before[i]}; {_EDGE}" if i in before else _EDGE for i in edges.tolist()}
    return replace(result, reasons={**before, **named})


def handle_failure(
    policy: FailurePolicy,
    described: str,
    solver: Solver,
    result: FlatSolution,
    shape: tuple[int, ...],
    build: Callable[[], Solution],
) -> None:
    """Raise or warn, as the policy says, if any system has not converged.

    Args:
        policy: The policy.
        described: The equation's name in the message.
        solver: The solver.
        result: The result; entries are per system.
        shape: The batch shape, for the indices of systems.
        build: Builds the solution that an error carries.

    Raises:
        SolveError: A system failed and the policy is `"raise"`.
    """
    if policy == "accept":
        return
    failed = np.flatnonzero(result.status != Status.CONVERGED)
    if len(failed) == 0:
        return
    lines = [
        f"{type(solver).__name__} did not solve {described}: "
        f"{len(failed)} of {len(result.status)} systems failed."
    ]
    for i in failed[:_LISTED]:
        status = Status(int(result.status[i]))
        index = tuple(int(k) for k in np.unravel_index(i, shape)) if shape else ()
        lines.append(
            f"  system {index}: {status.name} after {result.steps[i]} steps ({status.message}); "
            f"residual {result.residual_norm[i]:.3g}, tolerance {result.threshold[i]:.3g}"
        )
        if int(i) in result.reasons:
            lines.append(f"    reason: {' '.join(result.reasons[int(i)].split())}")
    if len(failed) > _LISTED:
        lines.append(f"  and {len(failed) - _LISTED} more")
    for code in sorted({int(code) for code in result.status[failed]}):
        lines.append(f"{Status(code).name}: {ADVICE[Status(code)]}.")
    lines.append('on_failure="accept" returns the best iterate without a word.')
    message = "\n".join(lines)
    if policy == "raise":
        raise SolveError(message, build())
    warnings.warn(message, SolveWarning, stacklevel=level_of_caller())


_PACKAGES = ("cli", "implicit", "models", "problems", "solvers", "studies", "verification")
_OWN = (
    *(str(Path(__file__).parents[2] / name) + os.sep for name in _PACKAGES),
    str(Path(torch.__file__).parent) + os.sep,
    contextlib.__file__,
)


def level_of_caller() -> int:
    """The `stacklevel` of the user's line: the first frame that is neither of this package nor of PyTorch."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN):
        frame, level = frame.f_back, level + 1
    return level
