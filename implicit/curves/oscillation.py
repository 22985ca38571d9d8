"""Pairs of complex eigenvalues of `∂F/∂z` that cross the imaginary axis: the test function of Hopf points."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .bordered import DenseJacobian
from .walk import Walk

# A pair farther from the imaginary axis than this part of its distance from the real one has not crossed it:
# it has met on the real axis.
_STEEP = 0.5


class Critical(NamedTuple):
    """The pair nearest to the imaginary axis.

    Attributes:
        frequency: The imaginary part of its eigenvalue, > 0.
        real, imaginary: The parts of its eigenvector, whose largest entry is one.
    """

    frequency: Tensor
    real: Tensor
    imaginary: Tensor


def growing_pairs(walk: Walk, w: Tensor) -> int:
    """The number of complex pairs with a positive real part."""
    values = torch.linalg.eigvals(_matrix(walk, w))
    return int(((values.imag > 0) & (values.real > 0)).sum())


def critical_pair(walk: Walk, w: Tensor) -> Critical | None:
    """The pair that crosses the imaginary axis near `w`; `None` where none is near it."""
    values, vectors = torch.linalg.eig(_matrix(walk, w))
    angle = torch.where(values.imag > 0, values.real.abs() / values.imag, torch.inf)
    place = int(angle.argmin())
    if not angle[place] <= _STEEP:
        return None
    vector = vectors[:, place]
    vector = vector / vector[vector.abs().argmax()]
    return Critical(values[place].imag, vector.real, vector.imag)


def _matrix(walk: Walk, w: Tensor) -> Tensor:
    _, jacobian = walk.linearize(w)
    assert isinstance(jacobian, DenseJacobian)
    return jacobian.entries[:, :-1]
