"""The bounds on which a solution lies, and whether its derivatives there are those of one side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..equations.differentiation import constants
from ..equations.layout import Leaves
from ..surroundings.evaluation import UserFunction
from .bounds import Bounded


@dataclass(frozen=True)
class ActiveBounds:
    """The bounds on which a solution lies.

    Attributes:
        active: Integers in the structure and shapes of the solution: −1 on a lower bound, 1 on an upper one,
            0 between them, 2 where both are the same.
        one_sided: Boolean, one entry per system: an unknown is on a bound that does not hold it back. The
            solution has a kink there in its arguments; derivatives are those of one side.

    Examples:
        >>> import torch, implicitly
        >>> f = lambda z: (z - torch.tensor([-1.0, 2.0])).square().sum()
        >>> solution = implicitly.minimise(f, torch.ones(2), bounds=(0.0, None))
        >>> solution.bounds.active.tolist(), bool(solution.bounds.one_sided)
        ([-1, 0], False)
    """

    active: Any
    one_sided: Tensor


def active_bounds(given: UserFunction, value: Leaves, batch_dims: int) -> ActiveBounds | None:
    """The active bounds of a solution, `None` for a call without bounds; two evaluations at most.

    A root within bounds that lies on one has derivatives as long as it moves inwards alone. A minimum, or the
    solution of a complementarity problem, has those of both sides where the multiplier, the function that
    the bound keeps from zero, is above the square root of rounding in units of what it was at the start.
    """
    function = given.function
    if not isinstance(function, Bounded):
        return None
    leaves = len(given.start)
    args, z = constants(given.tensors), constants(value)
    lower, upper = args[-2 * leaves : -leaves], args[-leaves:]
    below = tuple(a <= b for a, b in zip(z, lower, strict=True))
    above = tuple(a >= b for a, b in zip(z, upper, strict=True))
    # Bounds that are the same hold their unknown whatever the function is.
    weak = tuple(a ^ b for a, b in zip(above, below, strict=True))
    if function.reduces:
        with torch.no_grad():
            unreduced = given.bind_unreduced(args)
            here, start = unreduced(z), unreduced(constants(given.start))
        largest = _over_systems(torch.maximum, torch.amax, [s.abs() for s in start], batch_dims)
        weak = tuple(
            on & _small(multiplier, first, _beside(largest, first))
            for on, multiplier, first in zip(weak, here, start, strict=True)
        )
    signs = (
        torch.where(a & b, 2, a.to(torch.int8) - b.to(torch.int8))
        for a, b in zip(above, below, strict=True)
    )
    one_sided = _over_systems(torch.logical_or, torch.any, list(weak), batch_dims)
    return ActiveBounds(given.build(tuple(signs)), one_sided)


def _small(multiplier: Tensor, first: Tensor, largest: Tensor) -> Tensor:
    """True where a multiplier is zero but for rounding."""
    unit = torch.where(first != 0, first.abs(), largest)
    return multiplier.abs() <= torch.finfo(first.dtype).eps ** 0.5 * unit


def _over_systems(join: Any, over: Any, leaves: list[Tensor], batch_dims: int) -> Tensor:
    """One entry per system, over all unknowns of all leaves."""
    flat = [leaf.reshape((*leaf.shape[:batch_dims], -1)) for leaf in leaves if leaf.numel()]
    if not flat:
        return leaves[0].new_zeros(leaves[0].shape[:batch_dims])
    found: Tensor = over(flat[0], dim=-1)
    for leaf in flat[1:]:
        found = join(found, over(leaf, dim=-1))
    return found


def _beside(per_system: Tensor, leaf: Tensor) -> Tensor:
    """Entries of systems in a shape that broadcasts to a leaf."""
    shape = (*per_system.shape, *[1] * (leaf.dim() - per_system.dim()))
    return per_system.reshape(shape).to(leaf.dtype)
