"""Active sets of strictly convex programmes by block principal pivoting on their dual.

With `x₀ = −Q⁻¹ q`, `C = [A; G]`, `W = C Q⁻¹ Cᵀ` and multipliers `w` the constraints are violated by
`v = C x₀ − d − W w`. Given active rows, their multipliers follow from `v = 0`. Then every active row with a
multiplier below zero leaves, and every other one that is violated joins, all at once. Where that does not
lower the number of such rows for some rounds, only the last of them changes sides, which ends after finitely
many rounds for positive definite `W`.

The matrices are those of the constraints alone and are formed once, so that a round costs little. The sets
are guesses: they count once the conditions of optimality have been checked on them. A singular `Q` gets a
small multiple of the identity, which the refinement of the solution takes away again.

Source: Júdice & Pires 1994 (the method, and that it ends); Hintermüller, Ito & Kunisch 2003 (the same rounds
as a semismooth Newton method).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..interface.programme import Programme
from ..linear.rows import product
from .active_rows import ActiveRows
from .point import Point, largest
from .refining import REGULAR, Solve

# Rounds at most, and those without a new least number of rows that change, after which one row changes.
_ROUNDS, _PATIENCE = 20, 3
# Signs are wrong beyond this part of the largest number of their kind.
_WRONG = 1e-9


class Dual(NamedTuple):
    """The dual of a batch of strictly convex programmes; constraints are equations first.

    Attributes:
        factor: `L` of `Q = L Lᵀ`, `(batch, n, n)`.
        whitened: `L⁻¹ Cᵀ`, `(batch, n, p + m)`.
        matrix: `W`, `(batch, p + m, p + m)`.
        first: `C x₀ − d`, `(batch, p + m)`.
    """

    factor: Tensor
    whitened: Tensor
    matrix: Tensor
    first: Tensor

    @staticmethod
    def of(programme: Programme) -> Dual:
        """The dual; not finite where `Q` is not positive definite even with a small shift."""
        Q, q, A, b, G, h = programme
        shift = REGULAR * torch.eye(Q.shape[1], dtype=Q.dtype, device=Q.device)
        factor = torch.linalg.cholesky_ex(Q + shift).L
        sides = torch.cat((A.mT, G.mT, q.unsqueeze(2)), dim=2)
        whitened = torch.linalg.solve_triangular(factor, sides, upper=False)
        own, pull = whitened[:, :, :-1], whitened[:, :, -1]
        first = -product(own.mT, pull) - torch.cat((b, h), dim=1)
        return Dual(factor, own, own.mT @ own, first)

    def take(self, rows: Tensor) -> Dual:
        """The duals of some programmes."""
        return Dual(*(part.index_select(0, rows) for part in self))

    def solve_on(self, active: Tensor) -> Solve:
        """Solutions of the conditions with these inequalities, `(batch, m)`, as equations."""
        rows, factor = _factored(self.matrix, active)
        m, p = active.shape[1], self.first.shape[1] - active.shape[1]

        def solve(gradient: Tensor, equations: Tensor, inequalities: Tensor) -> Point:
            inner = torch.linalg.solve_triangular(self.factor, gradient.unsqueeze(2), upper=False)
            right = product(self.whitened.mT, inner.squeeze(2))
            right = right - torch.cat((equations, inequalities), dim=1)
            w = _multipliers(rows, factor, right)
            inner = inner - torch.bmm(self.whitened, w.unsqueeze(2))
            z = torch.linalg.solve_triangular(self.factor.mT, inner, upper=True).squeeze(2)
            return Point(z, w[:, :p], w[:, p : p + m])

        return solve


def active_sets(dual: Dual, m: int) -> tuple[Tensor, Tensor]:
    """Sets of active ones of `m` inequalities, `(batch, m)`, and where their signs are right, `(batch,)`."""
    W, first = dual.matrix, dual.first
    rows = torch.arange(len(W), device=W.device)
    found, right = first.new_zeros(len(W), m, dtype=torch.bool), rows < 0
    active, least = found, torch.full_like(rows, m + 1)
    left = torch.full_like(rows, _PATIENCE)
    for _ in range(_ROUNDS):
        wrong = _wrong(W, first, active)
        count = wrong.sum(dim=1)
        own = rows[count == 0]
        found, right = found.index_copy(0, own, active[count == 0]), right.index_fill(0, own, True)
        some = (count > 0).nonzero().flatten()
        if len(some) == 0:
            break
        better = count < least
        left, least = torch.where(better, _PATIENCE, left - 1), torch.minimum(count, least)
        last = wrong & (wrong.flip(1).cumsum(dim=1).flip(1) == 1)
        active = active ^ torch.where((left >= 0).unsqueeze(1), wrong, last)
        if len(some) < len(rows):
            rows, W, first, active = rows[some], W[some], first[some], active[some]
            left, least = left[some], least[some]
    return found, right


def _wrong(W: Tensor, first: Tensor, active: Tensor) -> Tensor:
    """Active inequalities with a multiplier below zero, and others that are violated."""
    p = first.shape[1] - active.shape[1]
    w = _multipliers(*_factored(W, active), first)
    violated, multiplier = (first - product(W, w))[:, p:], w[:, p:]
    low, high = _WRONG * largest(w), _WRONG * largest(first)
    return torch.where(active, multiplier < -low, violated > high)


def _factored(W: Tensor, active: Tensor) -> tuple[ActiveRows, Tensor]:
    """The rows of all equations and active inequalities, and the factor of their part of `W`."""
    always = active.new_ones(len(active), W.shape[1] - active.shape[1])
    rows = ActiveRows.of(torch.cat((always, active), dim=1))
    own = rows.of_matrix(rows.of_matrix(W).mT)
    regular = torch.where(rows.mine, REGULAR, 1.0).to(W)
    return rows, torch.linalg.cholesky_ex(own + torch.diag_embed(regular)).L


def _multipliers(rows: ActiveRows, factor: Tensor, right: Tensor) -> Tensor:
    some = torch.cholesky_solve(rows.of_vector(right).unsqueeze(2), factor).squeeze(2)
    return rows.spread(some, right.shape[1])
