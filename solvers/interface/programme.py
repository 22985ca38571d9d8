"""Data of convex quadratic programmes, for solvers of their conditions of optimality."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Programme(NamedTuple):
    """Data of a batch of programmes `min ½ zᵀQz + qᵀz` subject to `A z = b` and `G z ≤ h`.

    Attributes:
        Q: Symmetric, positive semidefinite, `(batch, n, n)`.
        q: `(batch, n)`.
        A: `(batch, p, n)`.
        b: `(batch, p)`.
        G: `(batch, m, n)`.
        h: `(batch, m)`.
    """

    Q: Tensor
    q: Tensor
    A: Tensor
    b: Tensor
    G: Tensor
    h: Tensor

    def take(self, rows: Tensor) -> Programme:
        """Some of the programmes."""
        return Programme(*(part.index_select(0, rows) for part in self))
