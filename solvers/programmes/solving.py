"""Minimisers of a batch of convex quadratic programmes: units, and the methods in turn.

First comes block pivoting on the dual, which is fast for strictly convex programmes with no more inequalities
than unknowns; then for others the interior-point method, which finds the active sets of all convex ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..interface.programme import Programme
from .mehrotra import interior_point
from .minimisers import Minimisers
from .pivoting import Dual, active_sets
from .point import Point
from .polish import polished
from .refining import refined
from .units import scaled

# Matrices of so many entries at once stay in the caches of a CPU.
_AT_ONCE = 2**20


def minimisers(programme: Programme, limit: int) -> tuple[Minimisers, Tensor]:
    """The minimisers, and the steps of the interior-point method that each took, at most `limit`."""
    batch, size = len(programme.q), sum(part.shape[1] for part in programme[1::2])
    few = at_once(size, programme.q.device, batch)
    points, errors, settled, steps = [], [], [], []
    for first in range(0, max(batch, 1), few):
        part = Programme(*(data[first : first + few] for data in programme))
        found, taken = _together(part, limit)
        points.append(found.at)
        errors.append(found.error)
        settled.append(found.settled)
        steps.append(taken)
    at = Point(*map(torch.cat, zip(*points, strict=True)))
    return Minimisers(at, torch.cat(errors), torch.cat(settled)), torch.cat(steps)


def at_once(size: int, device: torch.device, batch: int) -> int:
    """The number of matrices with `size` rows that are worked on at a time, at least 1."""
    if device.type != "cpu":
        return max(batch, 1)
    return max(_AT_ONCE // max(size, 1) ** 2, 1)


def _together(programme: Programme, limit: int) -> tuple[Minimisers, Tensor]:
    inner, units = scaled(programme)
    dual = Dual.of(inner)
    nothing = Point(*map(torch.zeros_like, inner[1::2]))
    active, steps = nothing.inequality > 0, torch.zeros_like(inner.q[:, 0], dtype=torch.int64)
    if inner.h.shape[1] <= inner.q.shape[1]:
        active, _ = active_sets(dual, inner.h.shape[1])
        found = _checked(inner, dual, active, nothing)
    else:
        found = Minimisers(nothing, torch.full_like(inner.q[:, 0], torch.inf), steps > 0)
    left = (~found.settled).nonzero().flatten()
    if len(left):
        others, taken = _by_interior_point(inner.take(left), dual.take(left), limit)
        found, steps = found.put(left, others), steps.index_copy(0, left, taken)
    return found._replace(at=units.back(found.at)), steps


def _checked(programme: Programme, dual: Dual, active: Tensor, at: Point) -> Minimisers:
    """The solutions on active sets by the dual, settled where they are minimisers."""
    found = refined(programme, active, at, dual.solve_on(active))
    return Minimisers(found.at, found.error, found.optimal)


def _by_interior_point(programme: Programme, dual: Dual, limit: int) -> tuple[Minimisers, Tensor]:
    at = Point(*map(torch.zeros_like, programme[1::2]))
    active, steps = at.inequality > 0, torch.zeros_like(at.z[:, 0], dtype=torch.int64)
    if programme.h.shape[1] > 0:
        near = interior_point(programme, limit)
        at, active, steps = near.at, near.multiplier > near.slack, near.steps.squeeze(1).long()
    found = _checked(programme, dual, active, at)
    left = (~found.settled).nonzero().flatten()
    if len(left):
        found = found.put(left, polished(programme.take(left), at.take(left), active[left]))
    return found, steps
