"""Newton's method for minimisation with dense Hessians in a trust region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...options.options import check_integer
from ..interface.problem import Problem
from ..interface.solver import Solver
from .held import free_part, hessian_at
from .region import Quadratic, RegionState, advance
from .subproblem import optimal_step

# Squares of the units are no smaller than this part of the largest.
_LEAST_UNIT = 1e-16
# Eigenvalues below so many times n roundings of the largest are zero.
_RANK_UNITS = 8


@dataclass(frozen=True)
class NewtonTrustRegion(Solver):
    """The minimiser of the quadratic model with the whole Hessian within a trust region.

    Along directions of negative curvature the step goes to the boundary, so that saddle points are left.
    The eigenvalues of the Hessian, in units of its diagonal, serve all radii of a step. A singular Hessian
    has the step of minimum norm. Within bounds the model is that of the unknowns which no bound holds back,
    and steps are projected.

    Attributes:
        max_trials: Radii that one step tries, after which a system stalls.

    Raises:
        ValueError: `max_trials` is not a positive integer.
        TypeError: Used with `root` or `fixed_point`.

    Source: Moré & Sorensen 1983; Conn, Gould & Toint 2000, chapters 6 and 7; Lin & Moré 1999 (bounds).

    Examples:
        >>> import torch, implicitly
        >>> f = lambda z: 100 * (z[1] - z[0] ** 2) ** 2 + (1 - z[0]) ** 2
        >>> z0 = torch.tensor([-1.2, 1.0], dtype=torch.float64)
        >>> z = implicitly.minimise(f, z0, solver=implicitly.NewtonTrustRegion()).value
        >>> [round(entry, 6) for entry in z.tolist()]
        [1.0, 1.0]
    """

    max_trials: int = 30
    needs: ClassVar[str] = "dense Hessians"
    suits: ClassVar[str] = "minima: the default for few unknowns"
    ends_itself: ClassVar[bool] = True
    keeps_bounds: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        check_integer("max_trials", self.max_trials, 1)

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> RegionState:
        return RegionState.of(problem, z, residual)

    def step(self, problem: Problem, state: RegionState) -> RegionState:
        hessian = hessian_at(problem, state.z)
        scale = _units(hessian, state.scale)
        model = Quadratic.of(hessian, free_part(problem, state.z, state.gradient), scale)
        rank = _RANK_UNITS * state.z.shape[1] * problem.eps(state.z)
        return advance(problem, state, model, optimal_step, self.max_trials, rank)


def _units(hessian: Tensor, before: Tensor) -> Tensor:
    """Roots of the diagonal, the largest so far, and no smaller than the rounding of the largest one."""
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2).abs()
    diagonal = torch.where(torch.isfinite(diagonal), diagonal, 0.0)
    largest = diagonal.amax(dim=1, keepdim=True)
    units = torch.maximum(diagonal, _LEAST_UNIT * largest).sqrt()
    scale = torch.maximum(units, before)
    return torch.where(scale > 0, scale, 1.0)
