"""Limited-memory BFGS and gradient descent: a direction and a line search on values and gradients.

The line search finds a step `t` with Armijo's decrease and, for BFGS, with a slope that has risen (the weak
Wolfe conditions): a step that is too long halves the bracket, one that is too short doubles the step or moves
the lower end. Where the decrease is hidden by the rounding of the objective, a slope that is not above
`(1 − 2c)` of the first in size takes its place.

Source: Nocedal 1980; Liu & Nocedal 1989 (limited memory); Lewis & Overton 2013, algorithm 2.6 (the bracket);
Hager & Zhang 2005 (the approximate conditions); Barzilai & Borwein 1988; Raydan 1997 (nonmonotone descent).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...options.options import check_integer
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import Solver
from ..linear.rows import dot, norm, ratio
from ..newton.globalisation import settled_systems
from .region import objective_of, runs_away

_DECREASE, _SLOPE = 1e-4, 0.9
_ROUNDINGS = 64.0
# A pair whose curvature is below this part of its lengths is not stored.
_LEAST_CURVATURE = 1e-10


@dataclass
class DescentState:
    """Iterate, objective, and what the next direction needs.

    Attributes:
        z: The iterate, `(batch, n)`.
        residual: Minus the gradient.
        value: The objective, `(batch,)`.
        values: Objectives of the last iterates, `(batch, memory)`.
        length: The first trial of the next step, `(batch, 1)`.
        moves: Last moves, newest first, `(batch, pairs, n)`.
        changes: Changes of the gradient along them.
        end_status: `Status` codes of systems that can do no more.
        first_size: The largest unknown of the start and of the first step.
        first_value: The objective at the start.
    """

    z: Tensor
    residual: Tensor
    value: Tensor
    values: Tensor
    length: Tensor
    moves: Tensor
    changes: Tensor
    end_status: Tensor
    first_size: Tensor
    first_value: Tensor


def _start(problem: Problem, z: Tensor, residual: Tensor, memory: int, pairs: int) -> DescentState:
    value = objective_of(problem).value(z)
    values = value.new_full((len(value), memory), -torch.inf)
    values[:, 0] = value
    # The first step is that of the parabola along the gradient, by one product.
    try:
        along = -problem.linearization(z).vjp(residual).detach()
        curvature = dot(residual, along).abs()
    except (TypeError, RuntimeError):
        curvature = norm(residual) ** 2
    square = dot(residual, residual)
    length = torch.where(curvature > 0, square / torch.where(curvature > 0, curvature, 1.0), 1.0)
    none = z.new_zeros(z.shape[0], pairs, z.shape[1])
    return DescentState(
        z, residual, value, values, length, none, none, torch.zeros_like(value),
        z.abs().amax(dim=1), value,
    )  # fmt: skip


@dataclass(frozen=True)
class LBFGS(Solver):
    """Quasi-Newton steps from the last pairs of moves and changes of the gradient, and a Wolfe line search.

    A step costs one value and one gradient in most cases, and no product with the Hessian.

    Attributes:
        memory: Number of pairs.
        max_trials: Lengths that one step tries, after which the pairs are dropped; then the system stalls.

    Raises:
        ValueError: A number is not a positive integer.
        TypeError: Used with `root` or `fixed_point`.

    Source: Nocedal 1980; Liu & Nocedal 1989; Lewis & Overton 2013.

    Examples:
        >>> import torch, implicitly
        >>> f = lambda z: ((z[1:] - z[:-1] ** 2) ** 2).sum() + ((1 - z) ** 2).sum()
        >>> z0 = torch.zeros(20, dtype=torch.float64)
        >>> z = implicitly.minimise(f, z0, solver=implicitly.LBFGS()).value
        >>> bool((z - 1).abs().max() < 1e-6)
        True
    """

    memory: int = 10
    max_trials: int = 40
    needs: ClassVar[str] = "values and gradients"
    suits: ClassVar[str] = "minima of smooth objectives with many unknowns"
    ends_itself: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 5000

    def __post_init__(self) -> None:
        for name in ("memory", "max_trials"):
            check_integer(name, getattr(self, name), 1)

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> DescentState:
        return _start(problem, z, residual, 1, self.memory)

    def step(self, problem: Problem, state: DescentState) -> DescentState:
        direction = two_loops(state)
        uphill = dot(direction, state.residual) <= 0
        direction = torch.where(uphill, state.residual * state.length, direction)
        known = (state.moves[:, 0] != 0).any(dim=1, keepdim=True) & ~uphill
        first = torch.ones_like(state.length)
        direction = torch.where(known, direction, state.residual * state.length)
        following = _searched(problem, state, direction, first, self.max_trials, wolfe=True)
        failed = (following.end_status == int(Status.STALLED)) & known.squeeze(1)
        if bool(failed.any()):  # Once more along the gradient.
            mask = failed.reshape(-1, 1, 1)
            following.moves = torch.where(mask, 0.0, following.moves)
            following.changes = torch.where(mask, 0.0, following.changes)
            following.end_status = torch.where(failed, 0, following.end_status)
        return following


@dataclass(frozen=True)
class GradientDescent(Solver):
    """Steps along the gradient, with Barzilai and Borwein's length and a nonmonotone line search.

    Attributes:
        memory: Objectives of so many last iterates that a step may reach; with one, each step decreases it.
        max_trials: Lengths that one step tries, after which a system stalls.

    Raises:
        ValueError: A number is not a positive integer.
        TypeError: Used with `root` or `fixed_point`.

    Source: Barzilai & Borwein 1988; Grippo, Lampariello & Lucidi 1986; Raydan 1997.

    Examples:
        >>> import torch, implicitly
        >>> f = lambda z: (torch.arange(1, 4, dtype=z.dtype) * (z - 1) ** 2).sum()
        >>> z0 = torch.zeros(3, dtype=torch.float64)
        >>> z = implicitly.minimise(f, z0, solver=implicitly.GradientDescent()).value
        >>> [round(entry, 6) for entry in z.tolist()]
        [1.0, 1.0, 1.0]
    """

    memory: int = 10
    max_trials: int = 40
    needs: ClassVar[str] = "values and gradients"
    suits: ClassVar[str] = "minima of well-conditioned objectives"
    ends_itself: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 20000

    def __post_init__(self) -> None:
        for name in ("memory", "max_trials"):
            check_integer(name, getattr(self, name), 1)

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> DescentState:
        return _start(problem, z, residual, self.memory, 1)

    def step(self, problem: Problem, state: DescentState) -> DescentState:
        return _searched(problem, state, state.residual, state.length, self.max_trials, wolfe=False)


def two_loops(state: DescentState) -> Tensor:
    """`−H g` by the two-loop recursion (Nocedal 1980)."""
    q = state.residual
    moves, changes = state.moves.unbind(1), state.changes.unbind(1)
    inverse = [
        ratio(torch.ones_like(dot(s, y)), dot(s, y)) for s, y in zip(moves, changes, strict=True)
    ]
    parts = []
    for s, y, rho in zip(moves, changes, inverse, strict=True):
        parts.append(rho * dot(s, q))
        q = q - parts[-1] * y
    scale = ratio(dot(moves[0], changes[0]), dot(changes[0], changes[0]))
    q = torch.where(scale > 0, scale, 1.0) * q
    for s, y, rho, part in reversed(list(zip(moves, changes, inverse, parts, strict=True))):
        q = q + (part - rho * dot(y, q)) * s
    return q


def _searched(
    problem: Problem,
    state: DescentState,
    direction: Tensor,
    first: Tensor,
    trials: int,
    *,
    wolfe: bool,
) -> DescentState:
    """The state after a line search along a direction."""
    objective = objective_of(problem)
    settled = settled_systems(problem, state.value).unsqueeze(1)
    slope = -dot(state.residual, direction)
    allowed = state.values.amax(dim=1, keepdim=True)
    noise = (_ROUNDINGS * problem.eps(state.z) * state.value.abs()).unsqueeze(1)
    low, high = torch.zeros_like(first), torch.full_like(first, torch.inf)
    t, done = first, settled
    z, value, residual = state.z, state.value.unsqueeze(1), state.residual
    for _ in range(trials):
        trial = torch.where(done, z, state.z + t * direction)
        reached, there = objective.value(trial).unsqueeze(1), problem.residual(trial)
        rise = -dot(there, direction)
        blind = (_DECREASE * t * slope).abs() <= noise
        flat = (rise.abs() <= (1 - 2 * _DECREASE) * slope.abs()) & (reached <= allowed + noise)
        falls = torch.where(blind, flat, reached <= allowed + _DECREASE * t * slope)
        falls &= torch.isfinite(there).all(dim=1, keepdim=True)
        falls &= torch.isfinite(reached) | torch.isneginf(reached)
        steep = (rise < _SLOPE * slope) & wolfe & ~blind & ~torch.isneginf(reached)
        good = falls & ~steep & ~done
        z, residual = torch.where(good, trial, z), torch.where(good, there, residual)
        value = torch.where(good, reached, value)
        done = done | good
        if bool(done.all()):
            break
        # A step that falls, and is still steep, is kept in case that none is better.
        short = falls & steep & ~done
        z, residual = torch.where(short, trial, z), torch.where(short, there, residual)
        value = torch.where(short, reached, value)
        low, high = torch.where(falls, t, low), torch.where(falls, high, t)
        t = torch.where(torch.isinf(high), 2 * t, (low + high) / 2)
    moved = (z != state.z).any(dim=1)
    return _following(state, z, value.squeeze(1), residual, moved | settled.squeeze(1), settled)


def _following(
    state: DescentState, z: Tensor, value: Tensor, residual: Tensor, moved: Tensor, settled: Tensor
) -> DescentState:
    move, change = z - state.z, state.residual - residual
    curvature = dot(move, change)
    usable = curvature > _LEAST_CURVATURE * norm(move) * norm(change)
    mask = usable.unsqueeze(2)
    moves = torch.cat((move.unsqueeze(1), state.moves[:, :-1]), dim=1)
    changes = torch.cat((change.unsqueeze(1), state.changes[:, :-1]), dim=1)
    # Barzilai and Borwein's longer step; twice the last move where the curvature is not positive.
    last = ratio(norm(move), norm(state.residual))
    length = torch.where(usable, ratio(dot(move, move), curvature), 2 * last)
    first_size = state.first_size
    if bool((state.moves == 0).all()):
        first_size = torch.maximum(first_size, move.abs().amax(dim=1))
    end = torch.where(moved, 0, int(Status.STALLED))
    away = runs_away(state, z, value, first_size) & ~settled.squeeze(1)
    end = torch.where(away, int(Status.UNBOUNDED), end)
    return DescentState(
        z, residual, value,
        torch.cat((value.unsqueeze(1), state.values[:, :-1]), dim=1),
        torch.where(settled, state.length, length),
        torch.where(mask, moves, state.moves),
        torch.where(mask, changes, state.changes),
        end.to(value.dtype),
        first_size,
        state.first_value,
    )  # fmt: skip
