"""Mehrotra's predictor–corrector method for batches of convex quadratic programmes.

Each step solves Newton's equations for the conditions of optimality with `λ s = σ μ` in place of `λ s = 0`,
twice with one factorisation: with `σ = 0`, which shows how far the complementarity `μ = λᵀs / m` can fall,
and then with `σ` by that and with the second-order term of the first. `Δs` and `Δλ` are eliminated:

    (Q + Gᵀ W G + ε) Δz + Aᵀ Δy = −r_d − Gᵀ w,    A Δz − ε Δy = −r_p,    W = Λ / S

A step of length `α` multiplies what is left of the conditions by `1 − α`, but for `ε`. Programmes have step
lengths of their own, and leave the batch as they end.

Source: Mehrotra 1992; Nocedal & Wright 2006, algorithm 16.4 and (16.62); Vandenberghe 2010, section 5.3 (the
start); Friedlander & Orban 2012 (regularisation of dependent equations).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..interface.programme import Programme
from ..linear.dense import factored, substituted
from ..linear.rows import product
from .point import Point, equations_at, gradient_at, largest, sizes_at, slack_at
from .refining import REGULAR

# Residuals and complementarity, relative to the numbers of a programme, at which the method ends: from there
# on the active set is known, or nearly so.
_MET, _CLOSED = 1e-8, 1e-9
# This part of the way to where a slack or a multiplier is zero is left; near the end less, but not below ...
_LEFT = 1e-2
# ... this one, so that none becomes zero by rounding.
_LEAST_LEFT = 1e-6
# Multipliers or unknowns beyond so many units belong to a programme without a solution.
_FAR = 1e13
# The start is so far inside, in units of the programme.
_INSIDE = 1.0


class Interior(NamedTuple):
    """Points inside of the constraints, and what is left of their conditions.

    Attributes:
        z: `(batch, n)`.
        y: Multipliers of the equations, `(batch, p)`.
        multiplier: Multipliers of the inequalities, above zero, `(batch, m)`.
        slack: Above zero, `(batch, m)`.
        gradient: `r_d = Q z + q + Aᵀ y + Gᵀ λ`, `(batch, n)`.
        equations: `r_p = A z − b`, `(batch, p)`.
        inequalities: `G z + s − h`, `(batch, m)`.
        steps: Steps taken, `(batch, 1)`.
    """

    z: Tensor
    y: Tensor
    multiplier: Tensor
    slack: Tensor
    gradient: Tensor
    equations: Tensor
    inequalities: Tensor
    steps: Tensor

    @property
    def at(self) -> Point:
        return Point(self.z, self.y, self.multiplier)

    def take(self, rows: Tensor) -> Interior:
        """The points of some programmes."""
        return Interior(*(part.index_select(0, rows) for part in self))

    def put(self, rows: Tensor, some: Interior) -> Interior:
        """The points with those of some programmes replaced."""
        parts = zip(self, some, strict=True)
        return Interior(*(part.index_copy(0, rows, new) for part, new in parts))


def interior_point(programme: Programme, limit: int) -> Interior:
    """Points near minimisers of programmes in their units, after at most `limit` steps each."""
    kept = now = _start(programme)
    rows = torch.arange(len(programme.q), device=programme.q.device)
    for _ in range(limit):
        ended = _small(programme, now)
        following = _step(programme, now)
        # A step that leads far away, or is not finite, ends the method at the point before.
        ended = ended | ~(torch.cat(following[:3], dim=1).abs() < _FAR).all(dim=1)
        if bool(ended.any()):
            kept, running = kept.put(rows, now), (~ended).nonzero().flatten()
            if len(running) == 0:
                return kept
            rows, programme = rows[running], programme.take(running)
            following = following.take(running)
        now = following
    return kept.put(rows, now)


def _small(programme: Programme, now: Interior) -> Tensor:
    primal, dual = sizes_at(programme, now.at)
    violated = torch.maximum(largest(now.equations), largest(now.inequalities))
    met = (largest(now.gradient) <= _MET * dual) & (violated <= _MET * primal)
    gap = (now.slack * now.multiplier).amax(dim=1, keepdim=True)
    return (met & (gap <= _CLOSED * primal * dual)).squeeze(1)


class _Move(NamedTuple):
    z: Tensor
    y: Tensor
    multiplier: Tensor
    slack: Tensor


def _step(programme: Programme, now: Interior) -> Interior:
    weights = now.multiplier / now.slack
    factors = factored(_matrix(programme, weights))
    gap = now.slack * now.multiplier
    mean = gap.mean(dim=1, keepdim=True)
    first = _direction(programme, now, weights, factors, gap)
    length = _length(now, first)
    ahead = (now.slack + length * first.slack) * (now.multiplier + length * first.multiplier)
    centring = (ahead.mean(dim=1, keepdim=True) / mean).clamp(0.0, 1.0) ** 3
    gap = gap + first.slack * first.multiplier - centring * mean
    move = _direction(programme, now, weights, factors, gap)
    part = 1 - (_LEFT * mean).clamp(_LEAST_LEFT, _LEFT)
    length = (part * _length(now, move)).clamp(max=1.0)
    z, y, multiplier, slack = (old + length * new for old, new in zip(now[:4], move, strict=True))
    gradient = (1 - length) * now.gradient - REGULAR * length * move.z
    equations = (1 - length) * now.equations + REGULAR * length * move.y
    inequalities = (1 - length) * now.inequalities
    return Interior(z, y, multiplier, slack, gradient, equations, inequalities, now.steps + 1)


def _direction(
    programme: Programme,
    now: Interior,
    weights: Tensor,
    factors: tuple[Tensor, Tensor],
    gap: Tensor,
) -> _Move:
    """The step to where `λ s`, which is `gap` too large, and all else that is left vanish."""
    shift = weights * now.inequalities - gap / now.slack
    right = torch.cat((-now.gradient - product(programme.G.mT, shift), -now.equations), dim=1)
    found = substituted(*factors, right)
    n = now.z.shape[1]
    along = product(programme.G, found[:, :n])
    multiplier = shift + weights * along
    return _Move(found[:, :n], found[:, n:], multiplier, -now.inequalities - along)


def _matrix(programme: Programme, weights: Tensor) -> Tensor:
    """`[Q + Gᵀ W G + ε, Aᵀ; A, −ε]`."""
    n, p = programme.q.shape[1], programme.b.shape[1]
    matrix = programme.q.new_empty(len(weights), n + p, n + p)
    weighted = weights.unsqueeze(2) * programme.G
    matrix[:, :n, :n] = torch.baddbmm(programme.Q, programme.G.mT, weighted)
    matrix[:, n:, :n], matrix[:, :n, n:], matrix[:, n:, n:] = programme.A, programme.A.mT, 0.0
    diagonal = torch.diagonal(matrix, dim1=1, dim2=2)
    diagonal[:, :n] += REGULAR
    diagonal[:, n:] -= REGULAR
    return matrix


def _length(now: Interior, move: _Move) -> Tensor:
    """The longest step at which no slack and no multiplier is below zero, at most 1, `(batch, 1)`."""
    rates = torch.cat((move.slack / now.slack, move.multiplier / now.multiplier), dim=1)
    return (-rates).amax(dim=1, keepdim=True).clamp(min=1.0).reciprocal()


def _start(programme: Programme) -> Interior:
    """The minimiser of the objective and half the squares of the slacks, moved inside."""
    n = programme.q.shape[1]
    factors = factored(_matrix(programme, torch.ones_like(programme.h)))
    pull = product(programme.G.mT, programme.h) - programme.q
    found = substituted(*factors, torch.cat((pull, programme.b), dim=1))
    z, y = found[:, :n], found[:, n:]
    slack = programme.h - product(programme.G, z)
    multiplier, inside = _inside(-slack), _inside(slack)
    at = Point(z, y, multiplier)
    return Interior(
        z, y, multiplier, inside, gradient_at(programme, at), equations_at(programme, at),
        inside - slack_at(programme, at), torch.zeros_like(z[:, :1]),
    )  # fmt: skip


def _inside(values: Tensor) -> Tensor:
    """Values above zero: moved by a common amount where one of them is not."""
    below = (-values).amax(dim=1, keepdim=True)
    return torch.where(below < 0, values, values + below + _INSIDE)
