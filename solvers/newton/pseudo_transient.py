"""Pseudo-transient continuation: implicit time steps of growing length towards a steady state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...options.options import is_positive
from ..interface.problem import Problem
from ..interface.scale import first_length
from ..interface.solution import Status
from ..interface.solver import Solver
from ..linear.dense import solve_dense
from .globalisation import Point, PointState


@dataclass
class PseudoTransientState(PointState):
    """Iterate and next time step, `(batch,)`."""

    time_step: Tensor
    end_status: Tensor

    @property
    def norm(self) -> Tensor:
        return self.point.norm


@dataclass(frozen=True)
class PseudoTransient(Solver):
    """Steps `(I/δ − J) s = r` of implicit Euler for `ż = r(z)`, whose time step `δ` follows the residual.

    Early steps follow the path of the time-dependent equation, where Newton's method would stall or jump
    to another solution. Late steps are Newton's: `δ_{k+1} = δ_k ‖r_k‖ / ‖r_{k+1}‖` (switched evolution
    relaxation), so that convergence to a regular, stable steady state is quadratic. The method is meant
    for steady states of a flow; the residual need not fall in each step.

    The unit of time of a root is `‖r‖ / ‖J r‖` at the start, with the sign that points downhill; for a
    fixed point it is one.

    Attributes:
        first_step: `δ` of the first step, in units of time.

    Raises:
        ValueError: `first_step` is not a positive number.

    Source: Kelley & Keyes 1998, algorithm PTC; Mulder & van Leer 1985.

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.tensor([-2.0, 0.8], dtype=torch.float64)
        >>> solver = implicitly.PseudoTransient()
        >>> solution = implicitly.root(lambda z: z**3 - z, z0, solver=solver, batch_dims=1)
        >>> solution.value.round(decimals=6).tolist()
        [-1.0, 1.0]
    """

    first_step: float = 10.0
    needs: ClassVar[str] = "dense Jacobians"
    suits: ClassVar[str] = "steady states"

    default_max_steps: ClassVar[int] = 200

    def __post_init__(self) -> None:
        if not is_positive(self.first_step):
            raise ValueError(f"first_step must be a number > 0, got {self.first_step!r}")

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> PseudoTransientState:
        point = Point.of(z, residual)
        unit = first_length(problem, z, residual).squeeze(1)
        return PseudoTransientState(point, self.first_step * unit, torch.zeros_like(unit))

    def step(self, problem: Problem, state: PseudoTransientState) -> PseudoTransientState:
        matrices = problem.linearization(state.z).jacobian(state.z)
        damping = torch.diag_embed((1.0 / state.time_step).unsqueeze(1).expand_as(state.z))
        move = solve_dense(damping - matrices, state.residual)
        z = state.z + move
        point = Point.of(z, problem.residual(z))
        time_step = state.time_step * state.norm / point.norm
        end_status = torch.where(
            torch.isfinite(move).all(dim=1), 0, int(Status.LINEAR_SOLVE_FAILED)
        )
        return PseudoTransientState(point, time_step, end_status)
