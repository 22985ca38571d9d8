"""Newton's method with dense Jacobians as operations of a graph: one trial point a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.traced import Part
from .method import Method

# A trial must lower the residual norm by this part of the fall that the linear model predicts.
_DECREASE = 1e-4
# A step shorter than this part of Newton's ends the system.
_SHORTEST = 2.0**-12


@dataclass
class GraphNewtonState:
    """Iterate, Newton's step from it, and the part of that step which is tried next."""

    z: Tensor
    residual: Tensor
    size: Tensor
    move: Tensor
    length: Tensor
    end_status: Tensor

    @property
    def norm(self) -> Tensor:
        """Residual norms, `(batch,)`."""
        return self.size.squeeze(1)

    def error(self) -> Tensor:
        """The Newton step that is still missing, relative to the smallest unknown, `(batch,)`."""
        return (self.move.abs() / self.z.abs()).amax(dim=1)


@dataclass(frozen=True)
class GraphNewton(Method):
    """Newton's method; a trial that does not lower the residual is followed by one of half the length.

    Each step evaluates value and Jacobian at one trial point of every system, so that no system waits for
    another. Without a globalisation every step is taken in full.

    Source: Kelley 1995, algorithm 8.1.1 (halving).
    """

    part: ClassVar[Part] = "jacobian"

    def begin(
        self, problem: Problem, z: Tensor, residual: Tensor, length: Tensor
    ) -> GraphNewtonState:
        move, solved = _newton_step(problem, z)
        return GraphNewtonState(
            z=z,
            residual=residual,
            size=torch.linalg.vector_norm(residual, dim=1, keepdim=True),
            move=move[1],
            length=torch.ones_like(length),
            end_status=torch.where(solved, 0, int(Status.LINEAR_SOLVE_FAILED)),
        )

    def advance(self, problem: Problem, state: GraphNewtonState) -> GraphNewtonState:
        z = state.z + state.length * state.move
        (residual, move), solved = _newton_step(problem, z)
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
        length, kept = state.length, state.end_status
        failed = torch.where(solved, 0, int(Status.LINEAR_SOLVE_FAILED))
        if self.solver.globalisation is None:
            return GraphNewtonState(z, residual, size, move, length, failed)
        accepted = size <= (1.0 - _DECREASE * length) * state.size
        shorter = 0.5 * length
        kept = torch.where(shorter.squeeze(1) < _SHORTEST, int(Status.STALLED), kept)
        return GraphNewtonState(
            torch.where(accepted, z, state.z),
            torch.where(accepted, residual, state.residual),
            torch.where(accepted, size, state.size),
            torch.where(accepted, move, state.move),
            torch.where(accepted, 1.0, shorter),
            torch.where(accepted.squeeze(1), failed, kept),
        )


def _newton_step(problem: Problem, z: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The residual at `z` and Newton's step from there, and the systems that have one."""
    linearization = problem.linearization(z)
    residual = linearization.residual
    assert residual is not None  # for the type checker: the problem is not linear
    matrices = linearization.jacobian(z)
    move = -torch.linalg.solve_ex(matrices, residual.unsqueeze(2)).result.squeeze(2)
    return (residual, move), torch.isfinite(move).all(dim=1)
