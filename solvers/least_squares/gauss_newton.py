"""Gauss and Newton's method with dense Jacobians: Levenberg–Marquardt, dogleg or shortened steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...options.options import check_integer, check_truth, one_of
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import Solver
from ..linear.rows import product
from ..minimisation.held import free_part, hessian_at, without_held
from ..minimisation.region import Path, Quadratic, RegionState, advance, objective_of
from ..minimisation.subproblem import dogleg_step, optimal_step, straight_step

Steps = Literal["levenberg-marquardt", "dogleg", "shortened"]
_PATHS: dict[str, Path] = {
    "levenberg-marquardt": optimal_step,
    "dogleg": dogleg_step,
    "shortened": straight_step,
}


@dataclass(frozen=True)
class GaussNewton(Solver):
    """Steps of the linear model of the residuals, `min ‖r + J s‖`, within a trust region.

    The step within the radius `Δ` is

    * `"levenberg-marquardt"`: the minimiser of `‖r + J s‖` with `‖D s‖ ≤ Δ`, that is a damped step whose
      damping follows from the radius (Moré 1978);
    * `"dogleg"`: the path along steepest descent and then towards the Gauss–Newton step (Powell 1970);
    * `"shortened"`: the Gauss–Newton step, cut at the radius.

    `D` holds the largest norms that the columns of `J` have had, so that units of the unknowns do not matter;
    with fewer residuals than unknowns it is one for all, and steps are of minimum norm. A singular value
    decomposition of `J` serves all radii of a step. Singular values that are zero to rounding are left out:
    a problem of deficient rank has the step of minimum norm.

    Near a minimiser with large residuals the model converges slowly or not at all. A step after one that did
    not quarter the gradient therefore has the whole Hessian of the objective as its model (`second_order`).

    Within bounds the model is that of the unknowns which no bound holds back, and steps are projected.

    Attributes:
        steps: The step within a radius.
        second_order: Use the Hessian where the Gauss–Newton model converges slowly.
        max_trials: Radii that one step tries, after which a system stalls.

    Raises:
        ValueError: No such step, or `max_trials` is not a positive integer.
        TypeError: `second_order` is not a truth value; used with `root`, `fixed_point` or `minimise`.

    Source: Levenberg 1944; Marquardt 1963; Moré 1978; Powell 1970; Dennis, Gay & Welsch 1981 (the choice
    between the two models); Lin & Moré 1999 (bounds).

    Examples:
        >>> import torch, implicitly
        >>> t = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        >>> y = 2 * torch.exp(-0.5 * t)
        >>> r = lambda z: z[0] * torch.exp(z[1] * t) - y
        >>> z0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
        >>> z = implicitly.least_squares(r, z0, solver=implicitly.GaussNewton("dogleg")).value
        >>> [round(entry, 6) for entry in z.tolist()]
        [2.0, -0.5]
    """

    steps: Steps = "levenberg-marquardt"
    second_order: bool = True
    max_trials: int = 30
    needs: ClassVar[str] = "dense Jacobians"
    suits: ClassVar[str] = "least squares: the default for few unknowns"
    ends_itself: ClassVar[bool] = True
    keeps_bounds: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        one_of("steps", self.steps, tuple(_PATHS))
        check_truth("second_order", self.second_order)
        check_integer("max_trials", self.max_trials, 1)

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> RegionState:
        return RegionState.of(problem, z, residual)

    def step(self, problem: Problem, state: RegionState) -> RegionState:
        residual, jacobian = objective_of(problem).model(state.z)
        m, n = jacobian.shape[1:]
        lengths = torch.linalg.vector_norm(jacobian, dim=1)
        scale = _units(lengths, state.scale, same=m < n)
        jacobian = without_held(problem, state.z, state.gradient, jacobian)
        rank = max(m, n) * problem.eps(state.z)
        model = _decomposed(jacobian, residual, scale, rank)
        if self.second_order and bool(state.slow.any()):
            hessian = hessian_at(problem, state.z)
            whole = Quadratic.of(hessian, free_part(problem, state.z, state.gradient), scale)
            model = model.where(state.slow, whole)
        following = advance(problem, state, model, _PATHS[self.steps], self.max_trials, rank**2)
        stuck = (following.end_status == int(Status.STALLED)) & ~state.slow
        if self.second_order and bool(stuck.any()):  # The whole Hessian has not been tried there.
            following.end_status = torch.where(stuck, 0, following.end_status)
            following.radius = torch.where(stuck, torch.nan, following.radius)
            following.slow = following.slow | stuck
        return following


def _units(lengths: Tensor, before: Tensor, *, same: bool) -> Tensor:
    """The units of unknowns: the largest column norms so far, one for a column of zeros."""
    if same:
        return torch.ones_like(lengths)
    lengths = torch.where(torch.isfinite(lengths), lengths, 0.0)
    scale = torch.maximum(lengths, before)
    return torch.where(scale > 0, scale, 1.0)


def _decomposed(jacobian: Tensor, residual: Tensor, scale: Tensor, rank: float) -> Quadratic:
    """The Gauss–Newton model from a singular value decomposition, which does not square the condition."""
    scaled = jacobian / scale.unsqueeze(1)
    scaled = torch.where(torch.isfinite(scaled), scaled, 0.0)
    left, singular, right = torch.linalg.svd(
        scaled, full_matrices=scaled.shape[1] < scaled.shape[2]
    )
    n = scaled.shape[2]
    found = singular.shape[1]
    singular = torch.where(singular > rank * singular[:, :1], singular, 0.0)
    along = singular * product(left[:, :, :found].mT, residual)
    if found < n:  # The null space of fewer residuals than unknowns.
        singular = torch.nn.functional.pad(singular, (0, n - found))
        along = torch.nn.functional.pad(along, (0, n - found))
    # Ascending, as eigenvalues are.
    return Quadratic((singular**2).flip(1), along.flip(1), right.mT.flip(2), scale)
