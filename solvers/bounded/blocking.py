"""Systems that steps within bounds lead no further, among them those that a bound keeps from a root."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..interface.solution import Status
from .local import Local
from .search import AWAY, Search, ahead_of, near_bounds, room_ahead

# The scaled gradient of the norm is zero below this part of its size, and a bound blocks an unknown whose
# own gradient, without that scaling, is above it.
_STATIONARY, _BLOCKING = 1e-7, 1e-4
# A step that leaves more than this part of the norm leads to no root.
_FALLS = 0.99
# An equation with more than this part of its terms left is not solved.
_LEFT = 1e-2
# An unknown this much nearer to its bound than it was has all but reached it.
_REACHED = 1e-8
# After so many steps in a row that a bound has stopped, it blocks the root.
_STOPS = 5


@dataclass(frozen=True)
class Ends:
    """The systems of a step that can do no more, `(batch,)` each.

    Attributes:
        stuck: No trial was accepted.
        blocked: A bound keeps the norm from falling.
        unsolvable: The linear equation of the step has no finite solution.
        stopped: Steps in a row that a bound has stopped.
    """

    stuck: Tensor
    blocked: Tensor
    unsolvable: Tensor
    stopped: Tensor

    @staticmethod
    def of(
        local: Local,
        search: Search,
        move: Tensor,
        widest: Tensor,
        stops: Tensor,
        *,
        watched: Tensor,
        solvable: Tensor,
    ) -> Ends:
        """The ends of a step; systems that are `watched` go on."""
        stopped = _stopped(local, search, move, widest) & ~watched
        count = torch.where(stopped, stops + 1, 0)
        blocked = _blocked(local, search) | (count >= _STOPS) | (~search.moved & stopped)
        return Ends(~search.accepted, blocked & ~watched, ~solvable, count)

    @property
    def any(self) -> Tensor:
        return self.stuck | self.blocked | self.unsolvable

    @property
    def status(self) -> Tensor:
        """`Status` codes, 0 for systems that go on."""
        end = torch.where(self.stuck, int(Status.STALLED), 0)
        end = torch.where(self.blocked, int(Status.BLOCKED), end)
        return torch.where(self.unsolvable, int(Status.LINEAR_SOLVE_FAILED), end)

    def but(self, which: Tensor) -> Ends:
        """The same, where the systems `which` go on."""
        return Ends(
            self.stuck & ~which,
            self.blocked & ~which,
            self.unsolvable & ~which,
            torch.where(which, 0, self.stopped),
        )


def reached(widest: Tensor) -> Tensor:
    """The distance at which unknowns that were as far as `widest` from a bound have all but reached it."""
    return _REACHED * torch.where(torch.isfinite(widest), widest, 1.0)


def _stopped(local: Local, search: Search, move: Tensor, widest: Tensor) -> Tensor:
    """The systems whose worst equation hardly improves, and with an unknown that would cross its bound."""
    if local.side is not None:
        return torch.zeros_like(search.accepted)
    down, up = near_bounds(local, search.z, move, reached(widest), AWAY)
    before = local.value.abs().amax(dim=1)
    after = (local.weights * search.value).abs().amax(dim=1)
    after = torch.where(search.moved, after, before)
    unsolved = after > torch.clamp(_FALLS * before, min=_LEFT)
    return (down | up).any(dim=1) & unsolved


def _blocked(local: Local, search: Search) -> Tensor:
    """The systems with a bound that keeps the norm from falling, at a minimum that is no root."""
    if local.side is not None:
        return torch.zeros_like(search.accepted)
    norm = local.norm.unsqueeze(1)
    gradient = local.matrix.turned(local.value)
    room = room_ahead(local, gradient)
    # Unknowns are scaled by their distance to a bound: the columns say how much they matter.
    columns = local.matrix.lengths()
    steep = gradient.abs() > _BLOCKING * columns * norm
    flat = (room * gradient).abs() <= _STATIONARY * norm
    at_bound = steep & torch.isfinite(ahead_of(local, gradient))
    stays = search.norm > _FALLS * local.norm
    return stays & flat.all(dim=1) & at_bound.any(dim=1) & (local.norm > 0)
