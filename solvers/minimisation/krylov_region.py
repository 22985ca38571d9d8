"""Truncated conjugate gradients in a trust region, from products with a Hessian.

The conjugate gradient iteration for `H s = −g` is followed until it meets the boundary of the region or a
direction of negative curvature, along which it then goes to the boundary, or until its residual is small.

Source: Steihaug 1983; Toint 1981; Eisenstat & Walker 1996 (how small); Hestenes & Stiefel 1952.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...options.options import check_integer, check_optional_integer
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import Solver
from ..linear.rows import dot, norm
from ..newton.globalisation import settled_systems
from .region import NEAR, RegionState, judged, noise_of, objective_of, runs_away

Product = Callable[[Tensor], Tensor]
Path = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The step within a radius, `(batch,)`, and the decrease that its model promises."""

_POOR_RATIO, _GOOD_RATIO = 0.25, 0.75
_CUT, _GROWTH = 0.25, 2.0
# The linear equation is solved to this part of the gradient at most, and to the root of the part that the
# gradient is of its first, so that convergence is superlinear.
_LOOSEST = 0.1


@dataclass(frozen=True)
class NewtonCG(Solver):
    """Truncated Newton steps in a trust region, by conjugate gradients on products with the Hessian.

    No matrix is formed.

    Attributes:
        max_iterations: Conjugate gradient iterations of a step; `None` for twice the number of unknowns.
        max_trials: Radii that one step tries, after which a system stalls.

    Raises:
        ValueError: A number is not a positive integer.
        TypeError: Used with `root` or `fixed_point`.

    Source: Steihaug 1983; Nocedal & Wright 2006, algorithm 7.2.

    Examples:
        >>> import torch, implicitly
        >>> f = lambda z: ((z - 1) ** 4 + (z - 1) ** 2).sum()
        >>> z0 = torch.zeros(1000, dtype=torch.float64)
        >>> z = implicitly.minimise(f, z0, solver=implicitly.NewtonCG()).value
        >>> bool((z - 1).abs().max() < 1e-8)
        True
    """

    max_iterations: int | None = None
    max_trials: int = 30
    needs: ClassVar[str] = "products with the Hessian"
    suits: ClassVar[str] = "minima and least squares with many unknowns"
    ends_itself: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        check_optional_integer("max_iterations", self.max_iterations, 1)
        check_integer("max_trials", self.max_trials, 1)

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> RegionState:
        return started(problem, z, residual)

    def step(self, problem: Problem, state: RegionState) -> RegionState:
        linearization = problem.linearization(state.z)
        limit = self.max_iterations or 2 * state.z.shape[1] + 10
        accuracy = (accuracy_of(state) * norm(state.residual).squeeze(1)).unsqueeze(1)

        # The Hessian is symmetric, and products with a transpose cost less.
        def product(v: Tensor) -> Tensor:
            return -linearization.vjp(v).detach()

        def path(radius: Tensor) -> tuple[Tensor, Tensor]:
            return truncated(product, -state.residual, radius, accuracy, limit)

        radius = first_radius(state, product)
        return advance_along(problem, state, path, radius, self.max_trials)


def started(problem: Problem, z: Tensor, residual: Tensor) -> RegionState:
    """The state at the start; its `scale` is the norm of the first gradient."""
    state = RegionState.of(problem, z, residual)
    return replace(state, scale=norm(residual).expand_as(z).clone())


def accuracy_of(state: RegionState) -> Tensor:
    """The part of the gradient to which the equation of a step is solved, `(batch,)`."""
    first, size = state.scale[:, 0], norm(state.residual).squeeze(1)
    share = torch.where(first > 0, size / first, 0.0).clamp(max=1.0)
    return share.sqrt().clamp(max=_LOOSEST)


def advance_along(
    problem: Problem,
    state: RegionState,
    path: Path,
    radius: Tensor,
    trials: int,
    units: Tensor | None = None,
) -> RegionState:
    """The state after the step of a path within the first radius that is accepted.

    Args:
        problem: The systems.
        state: The iterate.
        path: Gives the step within a radius and the decrease that its model promises.
        radius: The radius to begin with, `(batch,)`.
        trials: Radii that are tried.
        units: The units of unknowns in which radii are measured, `(batch, n)`; `None` for one.
    """
    settled = settled_systems(problem, state.value)
    size = norm(state.residual).squeeze(1)
    objective, noise = objective_of(problem), noise_of(problem, state)
    accepted, z, value, residual = settled, state.z, state.value, state.residual
    for _ in range(trials):
        step, promised = path(radius)
        problem.counts.linear_iterations += 1
        trial = torch.where(accepted.unsqueeze(1), z, state.z + step)
        reached = objective.value(trial)
        ratio, good = judged(state.value, reached, promised)
        blind = promised <= noise
        if bool((blind & ~accepted).any()):
            falls = norm(problem.residual(trial)).squeeze(1) < size
            good = torch.where(blind, falls & (reached <= state.value + noise), good)
        good &= ~accepted
        z = torch.where(good.unsqueeze(1), trial, z)
        value = torch.where(good, reached, value)
        length = norm(step if units is None else units * step).squeeze(1)
        following = torch.where(
            (ratio >= _GOOD_RATIO) | (blind & good),
            torch.maximum(radius, _GROWTH * length),
            radius,
        )
        poor = ~good | ((ratio < _POOR_RATIO) & ~blind)
        following = torch.where(poor, _CUT * torch.minimum(length, radius), following)
        radius = torch.where(accepted, radius, following)
        accepted = accepted | good
        if bool(accepted.all()):
            break
    residual = torch.where((accepted & ~settled).unsqueeze(1), problem.residual(z), residual)
    first_size = state.first_size
    if bool(state.radius.isnan().any()):
        first_size = torch.maximum(first_size, (z - state.z).abs().amax(dim=1))
    end = torch.where(accepted, 0, int(Status.STALLED))
    away = runs_away(state, z, value, first_size) & ~settled
    end = torch.where(away, int(Status.UNBOUNDED), end)
    near = (state.value - value).abs() <= NEAR * state.value.abs()
    return replace(
        state, z=z, residual=residual, value=value, radius=radius, first_size=first_size,
        end_status=end.to(value.dtype), slow=near & (norm(residual).squeeze(1) > _POOR_RATIO * size),
    )  # fmt: skip


def truncated(
    product: Product, gradient: Tensor, radius: Tensor, accuracy: Tensor, limit: int
) -> tuple[Tensor, Tensor]:
    """The step by conjugate gradients within the radius, and the decrease that the model promises."""
    step, image = torch.zeros_like(gradient), torch.zeros_like(gradient)
    left, direction = gradient, -gradient
    square = dot(left, left)
    ended = square <= 0
    bound = radius.unsqueeze(1)
    eps = torch.finfo(gradient.dtype).eps
    for _ in range(limit):
        along = product(direction)
        curvature = dot(direction, along)
        length = dot(direction, direction)
        negative = curvature <= eps * norm(along) * length.sqrt()
        alpha = square / torch.where(negative, 1.0, curvature)
        leaves = norm(step + alpha * direction) >= bound
        beyond = negative | leaves
        alpha = torch.where(beyond, to_boundary(step, direction, bound), alpha)
        alpha = torch.where(ended, 0.0, alpha)
        step, image = step + alpha * direction, image + alpha * along
        left = left + alpha * along
        following = dot(left, left)
        ended = ended | beyond | (following.sqrt() <= accuracy) | ~torch.isfinite(following)
        if bool(ended.all()):
            break
        direction = torch.where(ended, direction, -left + following / square * direction)
        square = torch.where(ended, square, following)
    promised = -(dot(gradient, step) + 0.5 * dot(step, image)).squeeze(1)
    return step, promised


def to_boundary(step: Tensor, direction: Tensor, bound: Tensor) -> Tensor:
    """The `t ≥ 0` for which `‖step + t direction‖` is the radius."""
    length, inside = dot(direction, direction), dot(step, direction)
    room = (bound**2 - dot(step, step)).clamp(min=0.0)
    root = (inside**2 + length * room).sqrt()
    return room / (inside + root).clamp(min=torch.finfo(step.dtype).tiny)


def first_radius(state: RegionState, product: Product) -> Tensor:
    """A hundred times the start; ten Cauchy steps where that is zero."""
    if not bool(state.radius.isnan().any()):
        return state.radius
    size = norm(state.z)
    gradient = state.residual
    curvature = dot(gradient, product(gradient)).abs()
    square = dot(gradient, gradient)
    cauchy = square.sqrt() * square / torch.where(curvature > 0, curvature, square)
    first = torch.where(size > 0, 100 * size, 10 * cauchy).squeeze(1)
    return torch.where(state.radius.isnan(), first, state.radius)
