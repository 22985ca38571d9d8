"""Residuals of zero that are no roots: they round to zero, or leave the range of their dtype.

The Jacobian vanishes there too, so that no estimate at the point itself tells them from `max(z, 0)`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..interface.golden import golden_signs
from ..interface.problem import Problem
from ..interface.scale import first_step
from .progress import FAR

# Evaluations that find where a residual becomes zero, to the last digit of a way of any length.
_HALVINGS = 64
# A residual that is this power of rounding beside the first one may be what rounding leaves.
_LITTLE = 2 / 3
# So many widths of the last bracket before it, a power of the distance is larger by at least their number.
_WIDTHS, _HARDLY_MORE = 16.0, 10.0
FALSE_ZERO = (
    "the residual falls to zero because it rounds to that far out, or leaves the range of its dtype"
)


def false_zeros(problem: Problem, start: Tensor, z: Tensor) -> np.ndarray:
    """The systems whose residual of zero at `z`, with a singular Jacobian, is no root."""
    return np.asarray(_underflows(problem, start, z) | _far(problem, start, z))


def flat_zeros(problem: Problem, start: Tensor, z: Tensor) -> np.ndarray:
    """The systems far from their start with a residual of zero at `z` and half way to it as well.

    A slope there is what rounding leaves of one, and tells no root.
    """
    size = start.abs().amax(dim=1).clamp_min(1.0)
    far = z.abs().amax(dim=1) > _far_out(problem, z) * size
    if not bool(far.any()):
        return np.zeros(z.shape[0], dtype=bool)
    half = (problem.residual((start + z) / 2) == 0).all(dim=1)
    return np.asarray((far & half).cpu().numpy())


def hidden_zeros(problem: Problem, start: Tensor, z: Tensor) -> np.ndarray:
    """The systems whose residual is zero on both sides of `z` as well, although its derivative is not.

    The sides are so far away that a root of third order is none there.

    Terms that cancel, or a function of the library that has no more digits, hide the slope: `1 + erf(z)` is
    zero from −6 on. An equation that is flat there has the derivative zero.
    """
    move = problem.eps(z) ** 0.25 * torch.maximum(z.abs(), start.abs()) * golden_signs(z)
    zero = torch.ones_like(z[:, 0], dtype=torch.bool)
    for side in (move, -move):
        zero &= (problem.residual(z + side) == 0).all(dim=1) & (side != 0).any(dim=1)
        if not bool(zero.any()):
            break
    else:
        slope = problem.linearization(z).jvp(move)
        zero &= (slope != 0).any(dim=1)
    return np.asarray(zero.detach().cpu().numpy())


def _underflows(problem: Problem, start: Tensor, z: Tensor) -> np.ndarray:
    """The systems with a residual of zero at `z` that falls out of the range of its dtype on the way there.

    Where the Jacobian vanishes too, only the way tells `e^−z` from `max(z, 0)`: halving finds the last
    residual before zero, which of the one has no square in the dtype. Of `1 + erf(z)` it is a rounding of
    what the residual was at the start, and hardly less than a little before, where a power of the distance
    would be many times as large.
    """
    if torch.equal(start, z):
        return np.zeros(z.shape[0], dtype=bool)
    inside, outside = torch.zeros_like(z[:, :1]), torch.ones_like(z[:, :1])
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        zero = (problem.residual(start + middle * (z - start)) == 0).all(dim=1, keepdim=True)
        inside, outside = torch.where(zero, inside, middle), torch.where(zero, middle, outside)
    last, before, first = (
        problem.residual(start + part * (z - start)).abs().amax(dim=1)
        for part in (inside, inside - _WIDTHS * (outside - inside), torch.zeros_like(inside))
    )
    small = (last > 0) & (last <= torch.finfo(z.dtype).tiny ** 0.5)
    rounded = (last <= problem.eps(z) ** _LITTLE * first) & (before < _HARDLY_MORE * last)
    small |= (last > 0) & rounded
    return np.asarray(small.detach().cpu().numpy())


def _far(problem: Problem, start: Tensor, z: Tensor) -> np.ndarray:
    """The systems that ran off, to where `√(1 + z²) − z` and its slope are rounded to zero."""
    step = first_step(problem, start, problem.residual(start))
    size = torch.maximum(start.abs(), step.abs()).amax(dim=1)
    far = z.abs().amax(dim=1) > _far_out(problem, z) * size
    return np.asarray(far.detach().cpu().numpy())


def _far_out(problem: Problem, z: Tensor) -> float:
    """Beyond so many sizes of the start, terms of the size of z² hide those of size one."""
    return float(min(FAR, 0.1 / problem.eps(z) ** 0.5))
