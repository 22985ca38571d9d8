"""Backtracking along a step, for every system of a batch on its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .problem import Problem

_SUFFICIENT_DECREASE = 1e-4
_SHORTEST_CUT, _LONGEST_CUT = 0.1, 0.5


@dataclass(frozen=True)
class Trial:
    """The outcome of a search along a step."""

    z: Tensor
    residual: Tensor
    norm: Tensor
    accepted: Tensor
    """Boolean, `(batch,)`; where false, the point is the start of the search."""


def take_full_step(problem: Problem, z: Tensor, step: Tensor) -> Trial:
    """`z + step` whatever comes of it."""
    z = z + step
    residual = problem.residual(z)
    norm = torch.linalg.vector_norm(residual, dim=1)
    return Trial(z, residual, norm, torch.ones_like(norm, dtype=torch.bool))


def backtrack(
    problem: Problem,
    z: Tensor,
    residual: Tensor,
    step: Tensor,
    *,
    max_trials: int,
) -> Trial:
    """Shorten `step` until the residual norm falls: `‖r(z + λs)‖ ≤ (1 − 1e-4 λ) ‖r(z)‖`.

    The next length minimises the parabola through `‖r‖²` at 0 and at the last length, with the slope of a
    Newton step at 0, kept between a tenth and a half of the last. A trial that is not finite is
    halved.

    Source: Dennis & Schnabel 1983, section 6.3.2; Kelley 1995, section 8.3.1.
    """
    norm = torch.linalg.vector_norm(residual, dim=1)
    length = torch.ones_like(norm)
    finished = problem.finished
    accepted = torch.zeros_like(norm, dtype=torch.bool) if finished is None else finished.squeeze(1)
    best_z, best_residual, best_norm = z, residual, norm
    for _ in range(max_trials):
        trial_z = z + length.unsqueeze(1) * step
        trial_z = torch.where(accepted.unsqueeze(1), best_z, trial_z)
        trial_residual = problem.residual(trial_z)
        trial_norm = torch.linalg.vector_norm(trial_residual, dim=1)
        good = ~accepted & (trial_norm <= (1 - _SUFFICIENT_DECREASE * length) * norm)
        column = good.unsqueeze(1)
        best_z = torch.where(column, trial_z, best_z)
        best_residual = torch.where(column, trial_residual, best_residual)
        best_norm = torch.where(good, trial_norm, best_norm)
        accepted = accepted | good
        if bool(accepted.all()):
            break
        ratio = trial_norm / norm
        cut = 1.0 / (ratio**2 - 1.0 + 2.0 * length) * length
        cut = torch.where(torch.isfinite(cut), cut, _LONGEST_CUT)
        length = torch.where(accepted, length, length * cut.clamp(_SHORTEST_CUT, _LONGEST_CUT))
    return Trial(best_z, best_residual, best_norm, accepted)
