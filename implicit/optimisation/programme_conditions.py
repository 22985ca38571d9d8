"""The conditions of optimality of quadratic programmes, as the function of a complementarity problem."""

from __future__ import annotations

from torch import Tensor

from .lagrangian import ConstrainedMinimum


class ProgrammeConditions:
    """`½ (Q + Qᵀ) z + q + Aᵀ y + Gᵀ λ`, `A z − b` and `h − G z`; the last is complementary to `λ`."""

    def __call__(
        self,
        unknown: ConstrainedMinimum,
        Q: Tensor,
        q: Tensor,
        A: Tensor,
        b: Tensor,
        G: Tensor,
        h: Tensor,
    ) -> ConstrainedMinimum:
        z, equality, inequality = unknown
        curved = 0.5 * (_times(Q, z) + _times(Q.mT, z))
        gradient = curved + q + _times(A.mT, equality) + _times(G.mT, inequality)
        return ConstrainedMinimum(gradient, _times(A, z) - b, h - _times(G, z))


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
