"""Brackets of scalar equations, as pure functions: finding one, and shrinking it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

_GROWTH = 2.0
# A bracket of this width, in units of rounding, cannot be divided further.
_NARROWEST_UNITS = 2.0


@dataclass
class Bracket:
    """Chandrupatla's three points and the place of the next; every tensor is `(batch, 1)`."""

    newest: Tensor
    opposite: Tensor
    """The end at which the residual has the other sign."""
    dropped: Tensor
    """The point that the newest one replaced."""
    newest_residual: Tensor
    opposite_residual: Tensor
    dropped_residual: Tensor
    share: Tensor
    """The next point, as a share of the way from the newest to the opposite end."""


@dataclass
class Search:
    """Points that move away from the start until the sign changes; every tensor is `(batch, 1)`."""

    below: Tensor
    above: Tensor
    below_residual: Tensor
    above_residual: Tensor
    down: Tensor
    """The length of the next step below."""
    up: Tensor
    floor: Tensor
    """The highest point below at which the residual was not finite."""
    ceiling: Tensor
    upwards: Tensor
    """Boolean: the next step is above."""


def outside(search: Search) -> Tensor:
    """The next point of a search: one step on, or halfway to a point whose residual is not finite."""
    up = torch.minimum(search.up, (search.ceiling - search.above) / 2)
    down = torch.minimum(search.down, (search.below - search.floor) / 2)
    return torch.where(search.upwards, search.above + up, search.below - down)


def extended(search: Search, z: Tensor, residual: Tensor) -> Search:
    """The search with one more point."""
    finite = torch.isfinite(residual)
    above, below = finite & search.upwards, finite & ~search.upwards
    return Search(
        below=torch.where(below, z, search.below),
        above=torch.where(above, z, search.above),
        below_residual=torch.where(below, residual, search.below_residual),
        above_residual=torch.where(above, residual, search.above_residual),
        down=torch.where(below, _GROWTH * search.down, search.down),
        up=torch.where(above, _GROWTH * search.up, search.up),
        floor=torch.where(~finite & ~search.upwards, z, search.floor),
        ceiling=torch.where(~finite & search.upwards, z, search.ceiling),
        upwards=~search.upwards,
    )


def first_bracket(search: Search, z: Tensor, residual: Tensor) -> Bracket:
    """The bracket from a new point of a search to the last one on its side."""
    near = torch.where(search.upwards, search.above, search.below)
    near_residual = torch.where(search.upwards, search.above_residual, search.below_residual)
    half = torch.full_like(z, 0.5)
    return Bracket(z, near, near, residual, near_residual, near_residual, half)


def inside(bracket: Bracket) -> Tensor:
    """The next point of a bracket."""
    return bracket.newest + bracket.share * (bracket.opposite - bracket.newest)


def narrowed(bracket: Bracket, z: Tensor, residual: Tensor) -> Bracket:
    """The bracket with the point `z` as one of its ends."""
    same = ~differ(residual, bracket.newest_residual)
    return aimed(
        Bracket(
            newest=z,
            opposite=torch.where(same, bracket.opposite, bracket.newest),
            dropped=torch.where(same, bracket.newest, bracket.opposite),
            newest_residual=residual,
            opposite_residual=torch.where(same, bracket.opposite_residual, bracket.newest_residual),
            dropped_residual=torch.where(same, bracket.newest_residual, bracket.opposite_residual),
            share=bracket.share,
        )
    )


def aimed(bracket: Bracket) -> Bracket:
    """The bracket with the share of its next point: inverse quadratic interpolation or the middle.

    Interpolation is used where the inverse parabola through the three points is monotone between the
    ends (Chandrupatla's criterion on `ξ` and `φ`).
    """
    x1, x2, x3 = bracket.newest, bracket.opposite, bracket.dropped
    f1, f2, f3 = bracket.newest_residual, bracket.opposite_residual, bracket.dropped_residual
    xi = (x1 - x2) / (x3 - x2)
    phi = (f1 - f2) / (f3 - f2)
    monotone = (phi.square() < xi) & ((1 - phi).square() < 1 - xi)

    def over(numerator: Tensor, denominator: Tensor) -> Tensor:
        # An unused parabola must not reach a derivative.
        return numerator / torch.where(monotone, denominator, 1.0)

    parabola = over(f1, f2 - f1) * over(f3, f2 - f3) + (
        over(x3 - x1, x2 - x1) * over(f1, f3 - f1) * over(f2, f3 - f2)
    )
    share = torch.where(monotone, parabola, 0.5)
    least = least_share(bracket).detach()
    share = torch.minimum(torch.maximum(share, least), 1 - least)
    return dataclasses.replace(bracket, share=torch.where(least < 0.5, share, 0.5))


def least_share(bracket: Bracket) -> Tensor:
    """The share of the bracket that rounding makes up."""
    width = (bracket.opposite - bracket.newest).abs()
    size = torch.maximum(bracket.opposite.abs(), bracket.newest.abs())
    return _NARROWEST_UNITS * torch.finfo(width.dtype).eps * size / width


def differ(one: Tensor, other: Tensor) -> Tensor:
    """True where two residuals have different signs; false where one is NaN."""
    return torch.sign(one) * torch.sign(other) < 0


def choose(which: Tensor, one: Bracket, other: Bracket) -> Bracket:
    """The bracket `one` for the systems `which`, and `other` for the rest."""
    names = [field.name for field in dataclasses.fields(Bracket)]
    return Bracket(*(torch.where(which, getattr(one, n), getattr(other, n)) for n in names))
