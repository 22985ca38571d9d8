"""Newton's method with dense Jacobians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .dense import solve_dense
from .line_search import backtrack, take_full_step
from .options import is_integer
from .problem import Problem
from .solution import Status
from .solver import Solver


@dataclass
class NewtonState:
    """The iterate, and which systems can go no further."""

    z: Tensor
    residual: Tensor
    norm: Tensor
    failed: Tensor


@dataclass(frozen=True)
class Newton(Solver):
    """`z ← z − λ J⁻¹ r` with the Jacobian of every system formed and factored.

    A singular Jacobian gives the least-squares step of minimum norm. Where no step length lowers the
    residual the system ends as stalled.

    Attributes:
        line_search: Whether to shorten steps that do not lower the residual norm.
        max_trials: Trial lengths of one search.

    Raises:
        ValueError: `max_trials` is not a positive integer.

    Source: Kelley 1995, algorithm 8.1.1.

    Example:
        >>> import torch, implicitly
        >>> z0 = torch.tensor([1.0, 1.0])
        >>> F = lambda z: torch.stack([z[0] ** 2 + z[1] ** 2 - 4, z[0] - z[1]])
        >>> implicitly.root(F, z0, solver=implicitly.Newton()).value
        tensor([1.4142, 1.4142])
    """

    line_search: bool = True
    max_trials: int = 20
    default_max_steps: ClassVar[int] = 100

    def __post_init__(self) -> None:
        if not is_integer(self.max_trials, 1):
            raise ValueError(f"max_trials must be an integer ≥ 1, got {self.max_trials!r}")

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> NewtonState:
        norm = torch.linalg.vector_norm(residual, dim=1)
        return NewtonState(z, residual, norm, torch.zeros_like(norm))

    def step(self, problem: Problem, state: NewtonState) -> NewtonState:
        jacobian = problem.linearization(state.z).jacobian(state.z)
        move = -solve_dense(jacobian, state.residual)
        if self.line_search:
            trial = backtrack(problem, state.z, state.residual, move, max_trials=self.max_trials)
        else:
            trial = take_full_step(problem, state.z, move)
        failed = torch.where(trial.accepted, 0, int(Status.STALLED))
        failed = torch.where(
            torch.isfinite(move).all(dim=1), failed, int(Status.LINEAR_SOLVE_FAILED)
        )
        return NewtonState(trial.z, trial.residual, trial.norm, failed)
