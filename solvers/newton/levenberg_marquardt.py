"""Levenberg and Marquardt's method: damped least-squares steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...options.options import check_integer, check_truth, is_positive
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import Solver
from .globalisation import (
    DESCENT_PATIENCE,
    Point,
    PointState,
    first_norms,
    next_norms,
    settled_systems,
    units,
    unmoved,
)
from .newton import dense_model
from .parabola import SUFFICIENT_DECREASE
from .trust_region import decrease, promised_decrease

_GOOD_RATIO = 0.25
_CUT = 4.0
_FIRST_GROWTH, _GROWTH_OF_GROWTH = 4.0, 2.0


@dataclass
class LevenbergMarquardtState(PointState):
    """Iterate, damping of the next step, and the norms that residuals are compared with."""

    damping: Tensor
    first_norm: Tensor
    norms: Tensor
    end_status: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class LevenbergMarquardt(Solver):
    """Steps that minimise `‖r + J s‖² + λ ‖D s‖²`, `D` the norms of the columns of `J`.

    The step lies between the Newton step (`λ = 0`) and a short step downhill, and exists for every
    Jacobian, singular ones included. The damping is `λ = μ ‖r‖ / ‖r₀‖`: it vanishes with the residual, so
    that convergence to a regular root is quadratic. `μ` falls where the model is good and grows, faster
    each time, while steps are rejected. Each trial solves one least-squares problem by QR of `2n × n`
    numbers.

    Attributes:
        first_damping: `μ` at the start; `D` makes it a number without unit.
        memory: Number of last residual norms to compare with; with one, the residual falls in every step.
        balance: Compare equations in units of the rows of the first Jacobian; see `Globalisation`.
        max_trials: Dampings that one step tries, after which a system stalls.

    Raises:
        ValueError: A number is out of range.
        TypeError: `balance` is not a truth value.

    Source: Levenberg 1944; Marquardt 1963; Moré 1978 (units); Fan & Yuan 2005 (damping by the residual);
    Nielsen 1999 (growth); Grippo, Lampariello & Lucidi 1986 (memory).

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.tensor([3.0, -1.0, 0.0, 1.0], dtype=torch.float64)  # Powell's singular function.
        >>> F = lambda z: torch.stack(
        ...     [z[0] + 10 * z[1], z[2] - z[3], (z[1] - 2 * z[2]) ** 2, (z[0] - z[3]) ** 2]
        ... )
        >>> solution = implicitly.root(F, z0, solver=implicitly.LevenbergMarquardt())
        >>> bool(solution.converged), bool(solution.value.abs().max() < 1e-4)
        (True, True)
    """

    first_damping: float = 1e-3
    memory: int = 10
    balance: bool = True
    max_trials: int = 20
    needs: ClassVar[str] = "dense Jacobians"
    suits: ClassVar[str] = "singular Jacobians, poor starts"

    default_max_steps: ClassVar[int] = 100

    @property
    def most_patience(self) -> float:
        return DESCENT_PATIENCE

    def __post_init__(self) -> None:
        if not is_positive(self.first_damping):
            raise ValueError(f"first_damping must be a number > 0, got {self.first_damping!r}")
        check_truth("balance", self.balance)
        for name in ("memory", "max_trials"):
            check_integer(name, getattr(self, name), 1)

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> LevenbergMarquardtState:
        point = Point.of(z, residual)
        return LevenbergMarquardtState(
            point,
            torch.full_like(point.norm, self.first_damping),
            point.norm,
            first_norms(point.norm, self.memory),
            torch.zeros_like(point.norm),
        )

    def step(self, problem: Problem, state: LevenbergMarquardtState) -> LevenbergMarquardtState:
        matrices = problem.linearization(state.z).jacobian(state.z)
        start, first_norm, norms, weights = (
            state.point, state.first_norm, state.norms, state.weights,
        )  # fmt: skip
        if self.balance and weights is None:
            weights = 1.0 / units(torch.linalg.vector_norm(matrices, dim=2), state.z)
            start = Point.of(state.z, state.residual, weights)
            first_norm, norms = start.norm, first_norms(start.norm, self.memory)
        model = dense_model(matrices, state.residual, weights, start.z, problem.linear)
        scale = units(model.lengths, start.z)
        weighted = matrices if weights is None else weights.unsqueeze(2) * matrices
        scaled = weighted / scale.unsqueeze(1)
        accepted = settled_systems(problem, start.norm)
        allowance, share = norms.amax(dim=1), start.norm / first_norm
        damping, point, over = state.damping, start, accepted
        growth = torch.full_like(damping, _FIRST_GROWTH)
        for _ in range(self.max_trials):
            move = _damped_step(scaled, model.residual, damping * share) / scale
            z = torch.where(over.unsqueeze(1), point.z, start.z + move)
            trial = Point.of(z, problem.residual(z), weights)
            promised = promised_decrease(model, model.jvp(move))
            ratio = decrease(allowance, trial.norm, start.norm) / promised
            good = ~over & (ratio >= SUFFICIENT_DECREASE)
            point = point.or_else(good, trial)
            smaller = torch.where(ratio >= _GOOD_RATIO, damping / _CUT, damping)
            following = torch.where(good, smaller, damping * growth)
            damping = torch.where(over, damping, following)
            growth = growth * _GROWTH_OF_GROWTH
            accepted, over = accepted | good, over | good | unmoved(start, trial)
            if bool(over.all()):
                break
        end_status = torch.where(accepted, 0, int(Status.STALLED))
        norms = next_norms(norms, point.norm)
        return LevenbergMarquardtState(point, damping, first_norm, norms, end_status, weights)


def _damped_step(matrices: Tensor, residual: Tensor, damping: Tensor) -> Tensor:
    """The minimiser of `‖r + A s‖² + damping ‖s‖²`, by QR of the stacked matrices."""
    batch, n = residual.shape
    identity = torch.eye(n, dtype=matrices.dtype, device=matrices.device).expand(batch, n, n)
    stacked = torch.cat((matrices, damping.sqrt().reshape(-1, 1, 1) * identity), dim=1)
    orthogonal, triangle = torch.linalg.qr(stacked)
    right = -torch.bmm(orthogonal[:, :n].mT, residual.unsqueeze(2))
    return torch.linalg.solve_triangular(triangle, right, upper=True).squeeze(2)
