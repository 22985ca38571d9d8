"""How the search for a constrained minimum ended: second-order conditions, and reasons of failures.

At a minimum the Hessian of the Lagrangian has no negative curvature on the tangent space of the active
constraints. Constraints that are active with a multiplier of zero allow their inner side: negative curvature
along a direction that they allow is enough to see that a point is no minimum.

Source: Nocedal & Wright 2006, theorem 12.5 (second-order necessary conditions), definition 12.4 (linear
independence of active constraints) and section 17.4 (infeasible stationary points).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...solvers import Status
from .augmented import Approximation
from .lagrangian import ConstrainedMinimum, Lagrangian

# Curvature below so many times n roundings of the largest is negative.
_NEGATIVE_UNITS = 1e3
# Constraints above this part of the unknowns, in units of their gradients, are violated.
_VIOLATED = 1e-4
# A violation is stationary where its gradient is below this part of the gradients of its terms.
_STATIONARY = 1e-2
# Constraints within this part of the unknowns, in units of their gradients, are active in a failed search.
_NEAR = 1e-3
# Active constraints depend on each other where a singular value is below this part of their gradients.
_DEPENDENT = 1e-2
# Unknowns that have grown beyond so many times the start go to infinity.
_FAR = 1e6


@dataclass(frozen=True)
class _Constraints:
    """Constraints and bounds at a point: values, gradients and kinds of rows `(*batch, rows)`.

    Attributes:
        rows: Gradients, outwards, in units of those at the start.
        strong: True for constraints that are held by a multiplier.
        weak: True for constraints that are active, with a multiplier of zero.
    """

    rows: Tensor
    strong: Tensor
    weak: Tensor


def judged(
    lagrangian: Lagrangian,
    found: ConstrainedMinimum,
    status: Tensor,
    near: Approximation,
    start: Tensor,
    box: tuple[Tensor, Tensor],
    args: tuple[Any, ...],
) -> Tensor:
    """The status of each problem, `(*batch,)`, by the end of the solve of its conditions.

    Args:
        lagrangian: The objective and its constraints.
        found: The solution of the conditions, without derivatives.
        status: How the solve of the conditions ended.
        near: The approximate minimum from which it began.
        start: The start of the search.
        box: Lower and upper bounds on `z`, infinite where there are none.
        args: Arguments of the functions.
    """
    converged = status == Status.CONVERGED
    saddle = _falls(lagrangian.hessian(found, *args), _active(lagrangian, found, start, box, args))
    failure = _reason(lagrangian, near, status, start, box, args)
    end = torch.where(saddle, int(Status.NOT_A_MINIMUM), status)
    return torch.where(converged, end, failure).to(status.dtype)


def _active(
    lagrangian: Lagrangian,
    at: ConstrainedMinimum,
    start: Tensor,
    box: tuple[Tensor, Tensor],
    args: tuple[Any, ...],
) -> _Constraints:
    z = at.z
    root = torch.finfo(z.dtype).eps ** 0.5
    size = z.abs().amax(-1, keepdim=True).clamp(min=1.0)
    conditions = lagrangian(at, *args)
    equality, inequality = (
        lagrangian.jacobian(name, z, *args) / units.unsqueeze(-1)
        for name, units in zip(("equalities", "inequalities"), _units(lagrangian, start, args), strict=True)
    )  # fmt: skip
    slack = conditions.inequality / _units(lagrangian, start, args)[1]
    held = at.inequality > 0
    steep = torch.diag_embed(torch.ones_like(z))
    lower, upper = z <= box[0], z >= box[1]
    flat = conditions.z.abs() <= root * _terms(lagrangian, at, args)
    rows = torch.cat((equality, inequality, -steep, steep), -2)
    always = torch.ones_like(at.equality, dtype=torch.bool)
    strong = torch.cat((always, held, lower & ~flat, upper & ~flat), -1)
    touching = ~held & (slack.abs() <= root * size)
    weak = torch.cat((~always, touching, lower & flat & ~upper, upper & flat & ~lower), -1)
    fixed = torch.cat((~always, torch.zeros_like(held), lower & upper, lower & upper), -1)
    return _Constraints(rows, strong | fixed, weak & ~fixed)


def _terms(lagrangian: Lagrangian, at: ConstrainedMinimum, args: tuple[Any, ...]) -> Tensor:
    """The size of the largest term of the gradient of the Lagrangian, `(*batch, 1)`."""
    none = at._replace(
        equality=torch.zeros_like(at.equality), inequality=torch.zeros_like(at.inequality)
    )
    return lagrangian(none, *args).z.abs().amax(-1, keepdim=True)


def _units(lagrangian: Lagrangian, start: Tensor, args: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    lengths = [
        lagrangian.jacobian(name, start, *args).norm(dim=-1)
        for name in ("equalities", "inequalities")
    ]
    first, second = (torch.where((x > 0) & torch.isfinite(x), x, 1.0) for x in lengths)
    return first, second


def _falls(hessian: Tensor, constraints: _Constraints) -> Tensor:
    """True where curvature is negative along a direction that active constraints allow."""
    least, _ = _least_curvature(hessian, constraints.rows, constraints.strong | constraints.weak)
    scale = torch.linalg.matrix_norm(hessian, ord="fro")
    limit = -_NEGATIVE_UNITS * hessian.shape[-1] * torch.finfo(hessian.dtype).eps * scale
    weaker, direction = _least_curvature(hessian, constraints.rows, constraints.strong)
    slopes = (constraints.rows @ direction.unsqueeze(-1)).squeeze(-1)
    slack = torch.finfo(hessian.dtype).eps ** 0.5
    allowed = [(~constraints.weak | (sign * slopes <= slack)).all(-1) for sign in (1.0, -1.0)]
    return (least < limit) | ((weaker < limit) & (allowed[0] | allowed[1]))


def _least_curvature(hessian: Tensor, rows: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """The least eigenvalue on the space that active rows leave, and its direction; 0 for no space."""
    n = hessian.shape[-1]
    kept = torch.nan_to_num(torch.where(active.unsqueeze(-1), rows, 0.0))
    identity = torch.eye(n, dtype=rows.dtype, device=rows.device)
    tangent = identity - torch.linalg.pinv(kept, rtol=torch.finfo(rows.dtype).eps ** 0.5) @ kept
    hessian = 0.5 * (hessian + hessian.mT)
    # Directions across the tangent space get the curvature zero, and are never the least.
    values, vectors = torch.linalg.eigh(tangent @ torch.nan_to_num(hessian) @ tangent)
    return values[..., 0], vectors[..., 0]


def _reason(
    lagrangian: Lagrangian,
    near: Approximation,
    status: Tensor,
    start: Tensor,
    box: tuple[Tensor, Tensor],
    args: tuple[Any, ...],
) -> Tensor:
    """The status of problems whose conditions were not solved, from the point where that began."""
    z = near.at.z
    units = _units(lagrangian, start, args)
    c, g = (
        lagrangian.constraint(name, z, *args) / unit
        for name, unit in zip(("equalities", "inequalities"), units, strict=True)
    )
    size = z.norm(dim=-1).clamp(min=1.0)
    jacobian = torch.cat(
        (lagrangian.jacobian("equalities", z, *args), lagrangian.jacobian("inequalities", z, *args)),
        -2,
    ) / torch.cat(units, -1).unsqueeze(-1)  # fmt: skip
    violation = torch.cat((c, g.clamp(min=0.0)), -1)
    violated = violation.norm(dim=-1) > _VIOLATED * size
    pull = (violation.unsqueeze(-2) @ jacobian).squeeze(-2)
    outwards = ((z <= box[0]) & (pull > 0)) | ((z >= box[1]) & (pull < 0))
    pull = torch.where(outwards, 0.0, pull).norm(dim=-1)
    terms = (violation.unsqueeze(-1) * jacobian).norm(dim=(-2, -1))
    # A gradient that vanishes is compared with its length at the start, which is the unit.
    terms = torch.maximum(terms, violation.norm(dim=-1))
    infeasible = violated & (pull <= _STATIONARY * terms)
    touching = torch.cat(
        (
            torch.ones_like(c, dtype=torch.bool),
            g >= -_NEAR * size.unsqueeze(-1),
            z <= box[0],
            (z >= box[1]) & (z > box[0]),
        ),
        -1,
    )
    normals = torch.diag_embed(torch.ones_like(z))
    rows = torch.nan_to_num(torch.cat((jacobian, normals, normals), -2))
    dependent = ~violated & _dependent(rows, touching)
    away = size > _FAR * start.norm(dim=-1).clamp(min=1.0)
    end = torch.where(dependent, int(Status.NO_QUALIFICATION), status)
    end = torch.where(away | (near.status == Status.UNBOUNDED), int(Status.UNBOUNDED), end)
    return torch.where(infeasible, int(Status.INFEASIBLE), end)


def _dependent(rows: Tensor, active: Tensor) -> Tensor:
    """True where active rows are linearly dependent but for a small part of their length."""
    if rows.shape[-2] == 0:
        return torch.zeros_like(active.any(-1))
    kept = torch.where(active.unsqueeze(-1), rows, 0.0)
    values = torch.linalg.svdvals(kept)
    rank = (values > _DEPENDENT).sum(-1)
    return rank < active.sum(-1)
