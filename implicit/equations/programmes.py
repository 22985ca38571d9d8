"""Data of quadratic programmes among the arguments of their conditions, and as solvers see them."""

from __future__ import annotations

from torch import Tensor

from ...solvers.interface.programme import Programme
from .layout import Layout, Leaves


def data(args: Leaves, batch: tuple[int, ...]) -> Programme:
    """The data for every system of a batch: `Q, q, A, b, G, h` are the first arguments."""
    Q, q, A, b, G, h = args[:6]
    Q, A, G = (matrix.expand(*batch, *matrix.shape[-2:]) for matrix in (Q, A, G))
    q, b, h = (vector.expand(*batch, vector.shape[-1]) for vector in (q, b, h))
    return Programme(0.5 * (Q + Q.mT), q, A, b, G, h)


def flat_programme(layout: Layout, args: Leaves) -> Programme:
    """The data of all systems along one axis, detached."""
    found = data(args, tuple(layout.batch_shape))
    behind = len(layout.batch_shape)

    def flat(part: Tensor) -> Tensor:
        return part.detach().reshape(layout.systems, *part.shape[behind:])

    return Programme(*map(flat, found))
