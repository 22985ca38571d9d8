"""Proof that a quadratic programme has no solution, from two others that always have one.

*Infeasible.* The least-squares violation `min ½‖Az − b‖² + ½‖t‖²` subject to `Gz − t ≤ h` has at its
minimum the residuals `r = Az − b` and `t ≥ 0` with `Aᵀr + Gᵀt = 0` and `bᵀr + hᵀt = −‖r‖² − ‖t‖²` (`t` is its
own multiplier). Every `z` that meets the constraints has `bᵀr + hᵀt ≥ zᵀ(Aᵀr + Gᵀt)`, which is zero: there is
none unless `r` and `t` vanish (Farkas' lemma).

*Unbounded.* `min ½‖ρ‖²` for `ρ = Qz + Aᵀy + Gᵀλ + q` over all `z`, `y` and `λ ≥ 0` has at its minimum
`Qρ = 0`, `Aρ = 0`, `Gρ ≥ 0` and `qᵀρ = ‖ρ‖²`: along `−ρ` the objective falls for ever, unless `ρ` vanishes.

With rounding, `Aᵀr + Gᵀt` is no exact zero. Points that meet the constraints are then at least
`−(bᵀr + hᵀt) / ‖Aᵀr + Gᵀt‖` long, and likewise multipliers in the second case: a certificate counts where
that is more than a large number of units of the programme.

Source: Nocedal & Wright 2006, lemma 12.4 (Farkas); Boyd & Vandenberghe 2004, section 5.8 (alternatives).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..interface.programme import Programme
from ..interface.solution import Status
from ..linear.rows import dot, norm, product
from .solving import minimisers
from .units import scaled

# Solutions, if there are any, are larger than so many units.
_FAR = 1e7
# A sum is no rounding if it is larger than so many roundings of its terms.
_ROUNDING_UNITS = 1e4


def without_solution(programme: Programme, limit: int) -> Tensor:
    """`INFEASIBLE` or `UNBOUNDED` where that is certain, else 0, `(batch,)`."""
    inner, _ = scaled(programme)
    infeasible, unbounded = _infeasible(inner, limit), _unbounded(inner, limit)
    status = torch.where(unbounded, int(Status.UNBOUNDED), 0)
    return torch.where(infeasible, int(Status.INFEASIBLE), status)


def _infeasible(programme: Programme, limit: int) -> Tensor:
    _, q, A, b, G, h = programme
    (n, m), batch = (q.shape[1], h.shape[1]), len(q)
    identity = torch.eye(m, dtype=q.dtype, device=q.device).expand(batch, m, m)
    matrix = q.new_zeros(batch, n + m, n + m)
    matrix[:, :n, :n], matrix[:, n:, n:] = A.mT @ A, identity
    violation = Programme(
        matrix, torch.cat((-product(A.mT, b), torch.zeros_like(h)), dim=1),
        A.new_zeros(batch, 0, n + m), b[:, :0], torch.cat((G, -identity), dim=2), h,
    )  # fmt: skip
    found, _ = minimisers(violation, limit)
    r, t = product(A, found.at.z[:, :n]) - b, found.at.z[:, n:].clamp(min=0.0)
    left = norm(product(A.mT, r) + product(G.mT, t))
    terms = dot(b.abs(), r.abs()) + dot(h.abs(), t)
    return _outweighs(-dot(b, r) - dot(h, t), terms, left)


def _unbounded(programme: Programme, limit: int) -> Tensor:
    Q, q, A, b, G, h = programme
    wide = torch.cat((Q, A.mT, G.mT), dim=2)
    batch, m, total = len(q), h.shape[1], wide.shape[2]
    signs = q.new_zeros(batch, m, total)
    torch.diagonal(signs[:, :, total - m :], dim1=1, dim2=2).fill_(-1.0)
    none = A.new_zeros(batch, 0, total), b[:, :0]
    gradient = Programme(wide.mT @ wide, product(wide.mT, q), *none, signs, torch.zeros_like(h))
    found, _ = minimisers(gradient, limit)
    rest = product(wide, found.at.z) + q
    wrong = torch.cat((product(Q, rest), product(A, rest), product(G, rest).clamp(max=0.0)), dim=1)
    return _outweighs(dot(q, rest), dot(q.abs(), rest.abs()), norm(wrong))


def _outweighs(gain: Tensor, terms: Tensor, left: Tensor) -> Tensor:
    """True where a gain is no rounding and large beside what is left of an equation, `(batch,)`."""
    real = gain > _ROUNDING_UNITS * torch.finfo(gain.dtype).eps * terms
    return (real & (gain >= _FAR * left)).squeeze(1)
