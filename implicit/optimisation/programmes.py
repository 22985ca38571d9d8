"""Quadratic programmes by their conditions of optimality, a mixed complementarity problem that is linear.

    Q z + q + Aᵀ y + Gᵀ λ = 0,    A z = b,    0 ≤ λ ⊥ h − G z ≥ 0

`complementarity` has the derivatives, with the active inequalities held fixed; `InteriorPoint` solves it.

Source: Amos & Kolter 2017 (the layer); Nocedal & Wright 2006, theorem 16.4.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...solvers import Solution, Solver
from ...solvers.programmes.interior_point import InteriorPoint
from ..equations.differentiation import transforming
from ..gradients import Gradient
from .complementarity import complementarity
from .lagrangian import ConstrainedMinimum, active_constraints
from .programme_conditions import ProgrammeConditions
from .programme_gradient import OnActiveSet

# Negative eigenvalues of Q of so many roundings of the largest are rounding.
_NEGATIVE_UNITS = 100


def quadratic_programme(
    Q: Tensor,
    q: Tensor,
    A: Tensor | None = None,
    b: Tensor | None = None,
    G: Tensor | None = None,
    h: Tensor | None = None,
    *,
    solver: Solver | None = None,
    gradient: Gradient | None = None,
    **options: Any,
) -> Solution:
    """Minimise `½ zᵀQz + qᵀz` subject to `A z = b` and `G z ≤ h`, differentiably in all of these.

    Dense, for up to some hundred unknowns and constraints. Leading axes of `q` index independent problems,
    which are solved together; those of the other tensors are the same or broadcast. Multipliers of inactive
    inequalities are exact zeros. Where an active one has the multiplier zero, the minimiser has a kink, its
    derivatives are those of one side, and `Solution.bounds.one_sided` says so.

    Args:
        Q: Positive semidefinite, `(..., n, n)`; its symmetric part counts.
        q: `(..., n)`.
        A: `(..., p, n)`; `None` for no equations. Derivatives need full row rank.
        b: `(..., p)`.
        G: `(..., m, n)`; `None` for no inequalities.
        h: `(..., m)`.
        solver: The solver of the conditions; `None` for the interior-point method of Mehrotra, in float64
            for every dtype.
        gradient: The gradient mode; `None` for exact derivatives by dense factors, at once for all problems.
        options: Options of `complementarity`: `stopping`, `gradient`, `on_failure`, ….

    Returns:
        The solution; its `value` is a `ConstrainedMinimum`. `bounds.active` has 1 for active inequalities and
        2 for equations. `error` is that of unknowns and multipliers, each kind relative to its largest.

    Raises:
        SolveError: A programme was not solved, with `on_failure="raise"`. The status is `INFEASIBLE` where
            the constraints contradict each other, and `UNBOUNDED` where the objective falls without bound.
        ValueError: `Q` has a negative eigenvalue, or one of `A` and `b`, or of `G` and `h`, is missing.

    Source: Mehrotra 1992; Nocedal & Wright 2006, algorithm 16.4; Stellato et al. 2020, section 5.2 (the exact
    solution on the active set); Fiacco 1983, theorem 3.2.2 (derivatives).

    Examples:
        >>> import torch, implicitly
        >>> x = torch.tensor([0.9, 0.4, -0.5], dtype=torch.float64, requires_grad=True)
        >>> I = torch.eye(3, dtype=torch.float64)
        >>> one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        >>> z = implicitly.quadratic_programme(I, -x, one.expand(1, 3), one, -I, zero).value.z
        >>> z[0].backward()  # The projection onto the simplex.
        >>> [round(entry, 4) for entry in z.abs().tolist()], (x.grad.round(decimals=4) + 0.0).tolist()
        ([0.75, 0.25, 0.0], [0.5, -0.5, 0.0])
    """
    _check(Q, (A, b), (G, h))
    n = q.shape[-1]
    A = q.new_zeros(0, n) if A is None else A
    b = q.new_zeros(0) if b is None else b
    G = q.new_zeros(0, n) if G is None else G
    h = q.new_zeros(0) if h is None else h
    batch = q.shape[:-1]
    b, h = (part.expand(*batch, part.shape[-1]) for part in (b, h))
    Q, A, G = (part.expand(*batch, *part.shape[-2:]) for part in (Q, A, G))
    start = ConstrainedMinimum(*map(torch.zeros_like, (q, b, h)))
    solution = complementarity(
        ProgrammeConditions(), start, Q, q, A, b, G, h,
        bounds=(ConstrainedMinimum(-torch.inf, -torch.inf, 0.0), None),
        solver=solver or InteriorPoint(), gradient=gradient or OnActiveSet(),
        batch_dims=len(batch), **options,
    )  # fmt: skip
    return replace(solution, bounds=active_constraints(solution.bounds))


def _check(Q: Tensor, equations: tuple[Any, Any], inequalities: tuple[Any, Any]) -> None:
    for names, pair in (("A and b", equations), ("G and h", inequalities)):
        if (pair[0] is None) != (pair[1] is None):
            raise ValueError(f"{names} must be given together, got only one of them")
    if transforming() or Q.numel() == 0:
        return
    matrices = Q.detach().reshape(-1, *Q.shape[-2:])
    matrices = 0.5 * (matrices + matrices.mT)
    limit = _NEGATIVE_UNITS * torch.finfo(Q.dtype).eps * matrices.abs().sum(-1).amax(-1)
    # A factor of Cholesky is a proof, and costs a tenth of the eigenvalues.
    shifted = matrices + torch.diag_embed(limit.unsqueeze(-1).expand(matrices.shape[:2]))
    doubtful = matrices[torch.linalg.cholesky_ex(shifted).info != 0]
    if len(doubtful) == 0:
        return
    values = torch.linalg.eigvalsh(doubtful)
    least, largest = values.amin(-1), values.abs().amax(-1)
    negative = least[least < -_NEGATIVE_UNITS * torch.finfo(Q.dtype).eps * largest]
    if len(negative):
        raise ValueError(
            f"Q must be positive semidefinite, got one with the eigenvalue {negative[0].item():.3g}: the "
            "objective is not convex, and its stationary points may be no minima"
        )
