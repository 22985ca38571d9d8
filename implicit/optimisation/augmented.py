"""Approximate minima with constraints, by the augmented Lagrangian of Powell, Hestenes and Rockafellar.

    f(z) + Σ (y c + ½ ρ c²) + Σ (max(0, λ + ρ g)² − λ²) / (2 ρ)

is minimised within the bounds, then `y ← y + ρ c` and `λ ← max(0, λ + ρ g)`; the weight `ρ` of a problem
grows where its constraints have not halved. Constraints are in units of their gradients at the start.

Source: Birgin & Martínez 2014, algorithm 4.1; Nocedal & Wright 2006, section 17.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...solvers import Solution, Status, Stopping
from .lagrangian import ConstrainedMinimum, Lagrangian
from .observing import observe

# A weight grows by this factor ...
_GROWTH = 10.0
# ... where constraints are above this part of what they were.
_REDUCTION = 0.5
# Updates of the multipliers at most.
_MOST_UPDATES = 30
# Minima are handed to Newton's method with about this relative error.
_ACCURACY = 1e-6
# Half of the digits of a coarse dtype are enough.
_SHARE_OF_DIGITS = 0.5
# The first weight makes a violation of this part of the unknowns as steep as the objective, ...
_FIRST_VIOLATION = 0.1
# ... and no weight exceeds so many times the first.
_MOST_GROWTH = 1e12

Minimise = Callable[..., Solution]
Multipliers = tuple[Tensor, ...]


@dataclass(frozen=True)
class Approximation:
    """An approximate minimum with constraints.

    Attributes:
        at: The point and its multipliers.
        status: How the last minimisation without constraints ended, `(*batch,)`.
    """

    at: ConstrainedMinimum
    status: Tensor


def approximate_minimum(
    lagrangian: Lagrangian, minimise: Minimise, z: Tensor, args: tuple[Any, ...], bounds: Any
) -> Approximation:
    """A point near a minimum with constraints, and near multipliers; detached.

    Args:
        lagrangian: The objective and its constraints.
        minimise: The minimiser of a function of `z` and further arguments.
        z: The start, `(*batch, n)`.
        args: Arguments of the functions.
        bounds: Bounds on `z`, or `None`.
    """
    units = [_units(lagrangian.jacobian(name, z, *args)) for name in ("equalities", "inequalities")]
    y, multiplier = (torch.zeros_like(unit) for unit in units)
    first = weight = _first_weight(lagrangian, z, args, units)
    rtol = max(_ACCURACY, torch.finfo(z.dtype).eps ** _SHARE_OF_DIGITS)

    # All tensors are arguments: those of a transform around the call may not be closed over.
    def augmented(z: Tensor, multipliers: Multipliers, *args: Any) -> Tensor:
        y, multiplier, weight, *units = multipliers
        c, g = _scaled(lagrangian, z, units, args)
        reached = (multiplier + weight * g).clamp(min=0.0)
        equality = (y * c + 0.5 * weight * c.square()).sum(-1)
        inequality = ((reached.square() - multiplier.square()) / (2 * weight)).sum(-1)
        return lagrangian.objective(z, *args) + equality + inequality

    before = torch.full_like(weight, torch.inf)
    for _ in range(_MOST_UPDATES):
        solution = minimise(
            augmented, z, (y, multiplier, weight, *units), *args, bounds=bounds, stopping=Stopping(rtol=rtol),
            batch_dims=lagrangian.batch_dims, on_failure="accept",
        )  # fmt: skip
        lost = (solution.status == Status.UNBOUNDED) | ~torch.isfinite(solution.value).all(-1)
        lost = lost.unsqueeze(-1)
        here = torch.where(lost, z, solution.value.detach())
        c, g = _scaled(lagrangian, here, units, args)
        reached = (multiplier + weight * g).clamp(min=0.0)
        violation = torch.cat((c, torch.maximum(g, -multiplier / weight)), -1).abs()
        violation = violation.sum(-1, keepdim=True)
        size = here.norm(dim=-1, keepdim=True).clamp(min=1.0)
        done = (violation <= rtol * size) & ~lost
        z = here
        y = torch.where(lost, y, y + weight * c)
        multiplier = torch.where(lost, multiplier, reached)
        # A problem that is done keeps its weight, and its next minimum is its last.
        slow = lost | (~done & (violation > _REDUCTION * before))
        grown = torch.minimum(weight * _GROWTH, first * _MOST_GROWTH)
        weight, before = torch.where(slow, grown, weight), torch.where(lost, before, violation)
        if _all(done | (weight >= first * _MOST_GROWTH)):
            break
    at = ConstrainedMinimum(z, y / units[0], multiplier / units[1])
    return Approximation(at, solution.status)


def _scaled(
    lagrangian: Lagrangian, z: Tensor, units: Sequence[Tensor], args: tuple[Any, ...]
) -> tuple[Tensor, Tensor]:
    """The constraints in their units."""
    c, g = (
        lagrangian.constraint(name, z, *args) / unit
        for name, unit in zip(("equalities", "inequalities"), units, strict=True)
    )
    return c, g


def _units(jacobian: Tensor) -> Tensor:
    """The lengths of the gradients of constraints; one for those without a gradient at the start."""
    length = jacobian.norm(dim=-1)
    return torch.where((length > 0) & torch.isfinite(length), length, 1.0)


def _first_weight(
    lagrangian: Lagrangian, z: Tensor, args: tuple[Any, ...], units: list[Tensor]
) -> Tensor:
    c, g = _scaled(lagrangian, z, units, args)
    none = ConstrainedMinimum(z, torch.zeros_like(c), torch.zeros_like(g))
    slope = lagrangian(none, *args).z.norm(dim=-1, keepdim=True)
    size = z.norm(dim=-1, keepdim=True).clamp(min=1.0)
    violated = torch.cat((c, g.clamp(min=0.0)), -1).norm(dim=-1, keepdim=True)
    weight = slope / torch.maximum(violated, _FIRST_VIOLATION * size)
    return torch.where((weight > 0) & torch.isfinite(weight), weight, 1.0)


def _all(done: Tensor) -> bool:
    found: list[bool] = []
    observe(lambda values: found.append(bool(values.all())), done)
    return all(found)
