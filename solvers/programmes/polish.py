"""The minimiser of a programme from a point near it, by rounds that change the active set where it is wrong.

An active multiplier that comes out below zero, or an inactive inequality that is violated, changes sides, and
the conditions are solved again.

Source: Stellato et al. 2020, section 5.2 (polishing); Hintermüller, Ito & Kunisch 2003 (active sets as a
semismooth Newton method).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..interface.programme import Programme
from ..linear.dense import factored, substituted
from .active_rows import ActiveRows
from .minimisers import Minimisers
from .point import Point
from .refining import Solve, refined

# Active sets that are tried.
_ROUNDS = 10
# Added to the diagonal in turn: refinement converges faster with the first, but where active inequalities
# depend on each other rounding is divided by it.
_SHIFTS = (1e-9, 1e-7)


def polished(programme: Programme, at: Point, active: Tensor) -> Minimisers:
    """The minimisers near points, of which the inequalities of a mask are active, in units of programmes."""
    rows = torch.arange(len(active), device=active.device)
    found = Minimisers(at, torch.full_like(at.z[:, 0], torch.inf), rows < 0)
    for turn in range(_ROUNDS):
        solve = _solve_on(programme, active, _SHIFTS[turn % 2])
        now = refined(programme, active, at, solve)
        done = now.optimal
        if bool(done.any()):
            own = done.nonzero().flatten()
            found = found.put(rows[own], Minimisers(now.at, now.error, done).take(own))
        some = (~done & torch.isfinite(now.error)).nonzero().flatten()
        if len(some) == 0:
            break
        active = ((active & ~now.leaves) | now.joins)[some]
        rows, programme, at = rows[some], programme.take(some), now.at.take(some)
    return found


def _solve_on(programme: Programme, active: Tensor, shift: float) -> Solve:
    """Solutions of the conditions with the active inequalities as equations, by LU."""
    n, p, m = (part.shape[1] for part in programme[1::2])
    rows = ActiveRows.of(active)
    matrix = rows.matrix(programme)
    regular = matrix.new_full(matrix.shape[:2], -shift)
    regular[:, :n] = shift
    factors = factored(matrix + torch.diag_embed(regular))

    def solve(gradient: Tensor, equations: Tensor, inequalities: Tensor) -> Point:
        right = torch.cat((gradient, equations, rows.of_vector(inequalities)), dim=1)
        w = substituted(*factors, right)
        return Point(w[:, :n], w[:, n : n + p], rows.spread(w[:, n + p :], m))

    return solve
