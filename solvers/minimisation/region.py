"""Trial steps of trust-region minimisers: a step is accepted where the objective falls as its model promises.

Where the promised decrease is below the rounding of the objective, its values say nothing. A step is then
accepted if it brings the gradient down, so that minimisers are as accurate as roots of the gradient and not
only to half of the digits.

Source: Moré 1978 (units, radii); Conn, Gould & Toint 2000, algorithm 6.1.1, and section 17.4.2 (rounding).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..interface.objective import Objective
from ..interface.problem import Problem
from ..interface.solution import Status
from ..linear.rows import product
from ..newton.globalisation import settled_systems
from ..newton.parabola import SUFFICIENT_DECREASE
from .held import gradient_at, residual_at

Path = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""The step within a radius, from eigenvalues, coefficients of the gradient, radius and rank tolerance."""

_POOR_RATIO, _GOOD_RATIO = 0.25, 0.75
_CUT, _GROWTH = 0.25, 2.0
# The first radius in units of the start.
_FIRST_RADIUS = 100.0
# A step that lowers the objective by no more than this part of it is near a minimum.
NEAR = 0.1
# A promised decrease of so many roundings of the objective is noise.
_ROUNDINGS = 64.0
# An iterate so many times as large as the start and the first step is far out ...
_FAR = 1e10
# ... and the objective has no bound there if the last step gained this part of all that was gained.
_STILL_FALLS = 0.1


class Quadratic(NamedTuple):
    """A quadratic model of the objective in the basis of its eigenvectors, in scaled unknowns.

    Attributes:
        values: Eigenvalues, ascending, `(batch, n)`.
        coefficients: The gradient in that basis, `(batch, n)`.
        basis: Eigenvectors as columns, `(batch, n, n)`.
        scale: Units: the scaled unknowns are `scale · z`, `(batch, n)`.
    """

    values: Tensor
    coefficients: Tensor
    basis: Tensor
    scale: Tensor

    @staticmethod
    def of(matrix: Tensor, gradient: Tensor, scale: Tensor) -> Quadratic:
        """The model with a symmetric matrix, `(batch, n, n)`; zero where it is not finite."""
        scaled = matrix / (scale.unsqueeze(1) * scale.unsqueeze(2))
        scaled = torch.where(torch.isfinite(scaled), scaled, 0.0)
        values, basis = torch.linalg.eigh(0.5 * (scaled + scaled.mT))
        return Quadratic(values, product(basis.mT, gradient / scale), basis, scale)

    def move(self, y: Tensor) -> Tensor:
        """The step in `z` of a step `y` in the basis."""
        return product(self.basis, y) / self.scale

    def along(self, step: Tensor) -> Tensor:
        """The step in the basis of a step in `z`."""
        return product(self.basis.mT, self.scale * step)

    def decrease(self, y: Tensor) -> Tensor:
        """The decrease that the model promises."""
        return -(self.coefficients * y + 0.5 * self.values * y * y).sum(dim=1)

    def where(self, mask: Tensor, other: Quadratic) -> Quadratic:
        """The model of `other` for the systems of a mask."""
        parts = zip(self, other, strict=True)
        return Quadratic(
            *(torch.where(mask.reshape(-1, *[1] * (a.dim() - 1)), b, a) for a, b in parts)
        )


class Start(Protocol):
    """The part of a state from which it is told whether an objective has a bound."""

    first_value: Tensor
    value: Tensor


@dataclass
class RegionState:
    """Iterate with its objective, and the trust region.

    Attributes:
        z: The iterate, `(batch, n)`.
        residual: Minus the gradient there, with bounds minus the projected gradient.
        gradient: The gradient.
        value: The objective, `(batch,)`.
        radius: Of the next step, in scaled unknowns; NaN before the first.
        scale: The units of the unknowns so far.
        end_status: `Status` codes of systems that can do no more.
        first_size: The largest unknown of the start and of the first step.
        first_value: The objective at the start.
        slow: The last step brought the gradient down by little.
    """

    z: Tensor
    residual: Tensor
    gradient: Tensor
    value: Tensor
    radius: Tensor
    scale: Tensor
    end_status: Tensor
    first_size: Tensor
    first_value: Tensor
    slow: Tensor

    @staticmethod
    def of(problem: Problem, z: Tensor, residual: Tensor) -> RegionState:
        """The state at the start.

        Raises:
            TypeError: The problem has no objective.
        """
        value = objective_of(problem).value(z)
        none = torch.zeros_like(value)
        return RegionState(
            z, residual, gradient_at(problem, z, residual), value, torch.full_like(value, torch.nan),
            torch.zeros_like(z), none,
            z.abs().amax(dim=1), value, none.bool(),
        )  # fmt: skip


def objective_of(problem: Problem) -> Objective:
    """The objective of a problem.

    Raises:
        TypeError: It has none.
    """
    if problem.objective is None:
        raise TypeError(
            "the solver minimises an objective, and root and fixed_point have none: call least_squares or "
            "minimise, or choose a solver of equations (Newton, Polyalgorithm)"
        )
    return problem.objective


def advance(
    problem: Problem, state: RegionState, model: Quadratic, path: Path, trials: int, rank: float
) -> RegionState:
    """The state after one step of the model, of the first radius that is accepted."""
    objective = objective_of(problem)
    settled = settled_systems(problem, state.value)
    accepted, z, value = settled, state.z, state.value
    residual, gradient, radius = state.residual, state.gradient, _first_radius(state, model)
    before = _norm(state.residual / model.scale)
    noise = noise_of(problem, state)
    for _ in range(trials):
        y = path(model.values, model.coefficients, radius, rank)
        trial, promised = _within(problem, state.z, model, y)
        trial = torch.where(accepted.unsqueeze(1), z, trial)
        if problem.box is not None and torch.equal(trial, z):
            break  # Bounds hold all of what is left, and shorter steps go nowhere either.
        reached = objective.value(trial)
        ratio, good = judged(state.value, reached, promised)
        blind = promised <= noise
        if bool((blind & ~accepted).any()):
            there = problem.residual(trial)
            falls = (_norm(there / model.scale) < before) & (reached <= state.value + noise)
            good = torch.where(blind, falls, good)
        good &= ~accepted
        z = torch.where(good.unsqueeze(1), trial, z)
        value = torch.where(good, reached, value)
        length = _norm(y)
        longer = (ratio >= _GOOD_RATIO) | (good & (length < 0.9 * radius)) | (blind & good)
        cut = _CUT * torch.minimum(length, radius)
        following = torch.where(longer, torch.maximum(_GROWTH * length, 0 * radius), radius)
        following = torch.where(~good | ((ratio < _POOR_RATIO) & ~blind), cut, following)
        radius = torch.where(accepted, radius, following)
        accepted = accepted | good
        if bool(accepted.all()):
            break
    moved = accepted & ~settled
    if bool(moved.any()):
        gradient = torch.where(moved.unsqueeze(1), gradient_at(problem, z), gradient)
        residual = torch.where(moved.unsqueeze(1), residual_at(problem, z, gradient), residual)
    first_size = state.first_size
    if bool(state.radius.isnan().any()):
        first_size = torch.maximum(first_size, (z - state.z).abs().amax(dim=1))
    end = torch.where(accepted, 0, int(Status.STALLED))
    away = runs_away(state, z, value, first_size)
    end = torch.where(away & ~settled, int(Status.UNBOUNDED), end)
    # Far from a minimum the gradient may grow while the objective falls.
    near = (state.value - value).abs() <= NEAR * state.value.abs()
    slow = near & (_norm(residual / model.scale) > _POOR_RATIO * before)
    return replace(
        state, z=z, residual=residual, gradient=gradient, value=value, radius=radius,
        scale=model.scale, end_status=end.to(value.dtype), first_size=first_size, slow=slow,
    )  # fmt: skip


def _within(problem: Problem, z: Tensor, model: Quadratic, y: Tensor) -> tuple[Tensor, Tensor]:
    """The point that a step leads to, within bounds, and the decrease that the model promises of it."""
    trial = z + model.move(y)
    if problem.box is None:
        return trial, model.decrease(y)
    trial = problem.box.onto(trial)
    return trial, model.decrease(model.along(trial - z))


def _first_radius(state: RegionState, model: Quadratic) -> Tensor:
    size = _norm(model.scale * state.z)
    sure = model.values.abs()
    sure = torch.maximum(sure, 1e-8 * sure.amax(dim=1, keepdim=True))
    step = _norm(model.coefficients / torch.where(sure > 0, sure, 1.0))
    first = torch.where(size > 0, _FIRST_RADIUS * size, 10 * step)
    return torch.where(state.radius.isnan(), first, state.radius)


def judged(before: Tensor, reached: Tensor, promised: Tensor) -> tuple[Tensor, Tensor]:
    """The part of the promised decrease that a trial has, and whether that is enough."""
    ratio = (before - reached) / promised
    good = (ratio >= SUFFICIENT_DECREASE) & (promised > 0) & torch.isfinite(reached)
    return ratio, good | torch.isneginf(reached)


def noise_of(problem: Problem, state: RegionState) -> Tensor:
    """The decrease that rounding of the objective hides, `(batch,)`."""
    return _ROUNDINGS * problem.eps(state.z) * state.value.abs()


def runs_away(state: Start, z: Tensor, value: Tensor, first_size: Tensor) -> Tensor:
    """The systems whose objective goes on falling far from the start."""
    far = z.abs().amax(dim=1) > _FAR * first_size
    gained, last = state.first_value - value, state.value - value
    return torch.isneginf(value) | (far & (gained > 0) & (last > _STILL_FALLS * gained))


def _norm(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1)
