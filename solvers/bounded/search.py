"""Trial points of one step within bounds, along Newton's path and in the variables of Coleman and Li.

Source: Bertsekas 1982 (projected paths); Coleman & Li 1996 (the interior scaling); Kanzow, Yamashita &
Fukushima 2004 (Newton's step first, a safeguarded one where it fails).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..interface.problem import Problem
from .local import Local, value_of

# Armijo's constant: a step must lower the norm by this part of what its linear model promises.
_SUFFICIENT = 1e-4
# Dampings that an interior step tries, in units of the largest diagonal entry of its matrix.
_DAMPINGS = (1e-12, 1e-8, 1e-5, 1e-3, 1e-1, 1e1, 1e3, 1e6)
# A whole step leads to a bound if it leaves no more than this part of the distance, and away from it if more
# than this.
THERE, AWAY = 0.01, 1.001
# A step that changes unknowns by less than this part of their units hardly moves them.
_RESTING = 1e-2


@dataclass
class Search:
    """Trial points of one step.

    Attributes:
        problem: The systems.
        local: Their equations near the iterate.
        accepted: Systems that need no further trial.
        fraction: See `ProjectedNewton`.
        z: The points reached.
        value: `F` there, where systems have moved.
        moved: The systems that have moved.
        norm: The norms reached.
    """

    problem: Problem
    local: Local
    accepted: Tensor
    fraction: float
    z: Tensor = field(init=False)
    value: Tensor = field(init=False)
    moved: Tensor = field(init=False)
    norm: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.z, self.value = self.local.z, torch.zeros_like(self.local.z)
        self.moved, self.norm = torch.zeros_like(self.accepted), self.local.norm

    @property
    def complete(self) -> bool:
        return bool(self.accepted.all())

    def shorten(self, move: Tensor, whole: Tensor, trials: int) -> None:
        """Halve a scaled step until the norm falls; the systems `whole` take it wherever it is finite."""
        for trial in range(trials):
            length = 0.5**trial
            highest = (1 - _SUFFICIENT * length) * self.local.norm
            highest = torch.where(whole, torch.finfo(highest.dtype).max, highest)
            if not self.attempt(length * move, highest) or self.complete:
                break

    def attempt(self, y: Tensor, highest: Any) -> bool:
        """Try a scaled step; it is accepted where it moves, to a norm of at most `highest`.

        False where it moves no system, so that no shorter one would.
        """
        usable = torch.isfinite(y).all(dim=1) & ~self.accepted
        trial = self.local.towards(torch.where(usable.unsqueeze(1), y, 0.0), self.fraction)
        moves = usable & (trial != self.local.z).any(dim=1)
        if not bool(moves.any()):
            return False
        self.go(trial, moves, highest)
        return True

    def go(self, trial: Tensor, usable: Tensor, highest: Any) -> None:
        """Go to a point where the norm there is at most `highest`, for the systems `usable`."""
        trial = torch.where(usable.unsqueeze(1), trial, self.z)
        value = value_of(self.problem, trial)
        norm = self.local.norm_at(trial, value)
        good = usable & (norm <= highest)
        column = good.unsqueeze(1)
        self.z = torch.where(column, trial, self.z)
        self.value = torch.where(column, value, self.value)
        self.norm = torch.where(good, norm, self.norm)
        self.accepted, self.moved = self.accepted | good, self.moved | good


def plain_step(problem: Problem, search: Search, local: Local, which: Tensor) -> Tensor:
    """The points that one plain step `z ← P(f(z))` leads to, for the systems `which`."""
    residual = -value_of(problem, search.z)
    move = torch.where(which.unsqueeze(1) & torch.isfinite(residual), residual, 0.0)
    return local.box.onto(search.z + move)


def near_bounds(
    local: Local, z: Tensor, move: Tensor, nearly: Tensor, left: float
) -> tuple[Tensor, Tensor]:
    """The unknowns within a distance of the lower, and of the upper bound that a step leads towards.

    Args:
        local: The equation where the step begins.
        z: The iterate.
        move: The whole step, in scaled unknowns.
        nearly: The distances.
        left: The part of its distance to the bound that the whole step may leave.
    """
    box, whole = local.box, local.z + local.scale * move
    below, above = z - box.lower, box.upper - z
    down = (below <= nearly) & (whole <= box.lower + left * (local.z - box.lower))
    up = (above <= nearly) & (whole >= box.upper - left * (box.upper - local.z))
    return down, up


def onto_bounds(
    local: Local,
    search: Search,
    move: Tensor,
    nearly: Tensor,
    left: float,
    which: Tensor,
    highest: Tensor,
) -> None:
    """Put unknowns near a bound on it, where the others rest and the norm is at most `highest` there."""
    box = local.box
    down, up = near_bounds(local, search.z, move, nearly, left)
    there = torch.where(down, box.lower, torch.where(up, box.upper, search.z))
    rest = torch.where(down | up, 0.0, move).abs().amax(dim=1) <= _RESTING
    some = (there != search.z).any(dim=1) & which & rest
    if bool(some.any()):
        search.go(there, some, highest)


def interior_steps(local: Local, search: Search) -> None:
    """Try damped Gauss–Newton steps in the variables of Coleman and Li."""
    gradient = local.matrix.turned(local.value)
    room = room_ahead(local, gradient)
    root = room.sqrt()
    # The derivative of the scaling, where a bound is ahead.
    bent = torch.where(torch.isfinite(ahead_of(local, gradient)), gradient.abs(), 0.0)
    damped = local.matrix.damped(root, bent)
    for damping in _DAMPINGS:
        y = root * damped(damping, -root * gradient)
        slope = (gradient * y).sum(dim=1)
        square = local.norm**2 + 2 * _SUFFICIENT * slope
        highest = square.clamp(min=0.0).sqrt()
        search.attempt(torch.where((slope < 0).unsqueeze(1), y, 0.0), highest)
        if search.complete:
            return


def ahead_of(local: Local, gradient: Tensor) -> Tensor:
    """The distance to the bound that a step along minus the gradient meets, in units of the unknown."""
    below, above = local.z - local.box.lower, local.box.upper - local.z
    ahead = torch.where(gradient > 0, below, above)
    return ahead / local.scale if local.side is None else torch.full_like(ahead, torch.inf)


def room_ahead(local: Local, gradient: Tensor) -> Tensor:
    """The same, and one where no bound is ahead."""
    ahead = ahead_of(local, gradient)
    return torch.where(torch.isfinite(ahead), ahead, 1.0)
