"""The estimated error of a minimiser, and the second-order check that tells it from a saddle point.

The gradient `g` and the Hessian `H` of an objective are the residual and the Jacobian of the equation
`g = 0`. The missing step is `δ = −H⁺ g`, in units of `max(|z_j|, u_j)` as for roots (`estimate`), with two
differences.

* `H` may be singular, as for fewer residuals than unknowns. In scaled unknowns `y = D z`, for which the
  largest entry of each row of `D⁻¹ H D⁻¹` is one, eigenvalues that are zero to rounding are left out. Along
  their eigenvectors the gradient must vanish to rounding, and `δ` is the step of minimum norm.
* The gradient `Jᵀ r` of least squares is rounded in units of `|J|ᵀ |r|`, which also tells the least size of
  an unknown that the equations notice.

At a minimum no eigenvalue is negative. Where one is zero to rounding, the objective is compared with its
values at both sides along the eigenvector: it must not fall.

Source: Ruiz 2001 (scaling); Nocedal & Wright 2006, theorems 2.3 and 2.4 (second-order conditions); Dennis &
Schnabel 1983, section 7.2 (relative steps).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..interface.objective import Objective
from ..interface.problem import Problem
from ..interface.solution import Status
from ..linear.rows import product
from .estimate import MOST_DENSE, Estimate
from .ledger import Ledger
from .progress import CONVERGED, STALLED

# A gradient of so many roundings of its terms is zero.
_ROUNDING_UNITS = 4
# Eigenvalues below so many times n roundings of the largest are zero ...
_RANK_UNITS = 8
# ... and those beyond so many times that below zero are negative.
_NEGATIVE_UNITS = 1e3
# A step that leaves more than this part of the gradient does not solve its equation.
_REPRODUCED = 0.1
# Rounds of the scaling, each of which halves the exponent that is left.
_SCALING_ROUNDS = 6
# Dense Hessians of a batch hold at most so many numbers.
_MOST_ENTRIES = 2**23
# Lanczos steps that look for negative curvature of large Hessians.
_LANCZOS_STEPS = 40
# Unknowns are moved by this part of their size to see whether the objective falls.
_MOVE = 1e-3
# A fall of so many roundings of the objective is one.
_FALL_UNITS = 1e3
# An accepted iterate with a larger relative error is so near zero that its size does not matter.
_DEGENERATE = 1e-3
# Evaluations that find where a gradient becomes zero.
_HALVINGS = 12

SADDLE = "the gradient vanishes, and the objective falls along a direction there"
FLAT = "the objective does not depend on the unknowns there, to rounding"
UNDERFLOW = (
    "the objective does not depend on an unknown any more, because its derivative falls out of the range of "
    "the dtype on the way there: the least value may be at infinity"
)


def dense_is_possible(z: Tensor) -> bool:
    """True if the Hessians of all systems may be formed together."""
    batch, n = z.shape
    return n <= MOST_DENSE and batch * n * n <= _MOST_ENTRIES


def estimated_minimum(problem: Problem, z: Tensor, first: Tensor, xtol: float) -> Estimate:
    """The missing step of minimum norm at `z`, from Hessians; see `estimated`."""
    residual, hessian = _reduced_derivatives(problem, z)
    n, eps = z.shape[1], problem.eps(z)
    size, entries = problem.size(z), hessian.abs()
    terms = product(entries, size) + _rounded_terms(problem, z)
    least = torch.where(entries > 0, terms.unsqueeze(2) / entries, torch.inf).amin(dim=1)
    typical = torch.maximum(size, torch.where(torch.isfinite(least), least, 0.0))
    typical = torch.where(typical > 0, typical, torch.where(first > 0, first, 1.0))
    scale, scaled = equilibrated(hessian)
    finite = torch.isfinite(scaled).all(dim=(1, 2)) & torch.isfinite(residual).all(dim=1)
    values, basis = torch.linalg.eigh(torch.where(finite.reshape(-1, 1, 1), scaled, 0.0))
    right = product(basis.mT, residual.double() / scale)
    noise = product(basis.abs().mT, eps * terms.double() / scale)
    regular = values.abs() > _RANK_UNITS * n * eps
    inverse = torch.where(regular, 1 / torch.where(regular, values, 1.0), 0.0)
    step = product(basis, inverse * right) / scale
    open_ = ~regular & (right.abs() > _ROUNDING_UNITS * noise)
    largest = right.abs().amax(dim=1, keepdim=True)
    solves = finite & ~(open_ & (right.abs() > _REPRODUCED * largest)).any(dim=1)
    rounding = product(basis.abs(), inverse.abs() * noise) / scale
    met = residual.abs() <= _ROUNDING_UNITS * eps * terms
    relative = (step.abs() / typical).amax(dim=1)
    distance = step.abs() / torch.where(first > 0, first, typical)
    distance = distance.masked_fill(step.abs() <= xtol * typical, 0.0).amax(dim=1)
    return Estimate(
        torch.where(solves, relative, torch.inf).to(z.dtype),
        torch.where(solves, distance, torch.inf).to(z.dtype),
        met.all(dim=1) & finite,
        residual,
        (rounding / typical).amax(dim=1).to(z.dtype),
    )


def _reduced_derivatives(problem: Problem, z: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the projected gradient, and the Hessian with the identity for unknowns that bounds hold back."""
    linearization = (problem.unreduced or problem).linearization(z)
    assert linearization.residual is not None  # for the type checker: the problem is not linear
    residual = linearization.residual.detach()
    hessian = -linearization.jacobian(z).detach()
    if problem.box is None:
        return residual, hessian
    held = problem.box.held(z, -residual)
    hessian = torch.where(held.unsqueeze(1) | held.unsqueeze(2), 0.0, hessian)
    return -problem.box.reduced(z, -residual), hessian + torch.diag_embed(held.to(z.dtype))


def _rounded_terms(problem: Problem, z: Tensor) -> Tensor:
    """`|J|ᵀ |w r|`, of which the gradient of least squares is a sum; zeros for other objectives."""
    objective = problem.objective
    if objective is None or not objective.has_residuals:
        return torch.zeros_like(z)
    residual, derivative = objective.linearization(z)
    matrix = derivative.jacobian(z).detach()
    weighted = objective.weights(residual) * residual
    return product(matrix.abs().mT, weighted.abs()).to(z.dtype)


def equilibrated(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """`D` and `D⁻¹ H D⁻¹` in float64, symmetric, with largest entries of one in each row that is not zero."""
    scaled = (0.5 * (hessian + hessian.mT)).double()
    scale = torch.ones_like(scaled[:, 0])
    for _ in range(_SCALING_ROUNDS):
        rows = scaled.abs().amax(dim=2).sqrt()
        rows = torch.where((rows > 0) & torch.isfinite(rows), rows, 1.0)
        scaled = scaled / (rows.unsqueeze(1) * rows.unsqueeze(2))
        scale = scale * rows
    return scale, scaled


def check_minima(problem: Problem, ledger: Ledger, start: Tensor) -> None:
    """Give converged systems that are no minima the status they have.

    Up to 2048 unknowns by all eigenvalues of the Hessian; for more by a search with Lanczos' method, whose
    findings are certain, and which may miss a direction.

    Args:
        problem: The systems, with an objective.
        ledger: Their record.
        start: The start, `(batch, n)`.
    """
    objective = problem.objective
    claimed = ledger.status == CONVERGED
    if objective is None or not claimed.any():
        return
    z = ledger.z
    least, direction, flat = _least_curvature(problem, z, start)
    verdicts = {SADDLE: least < 0, FLAT: flat}
    falls, rises = _beside(objective, z, start, direction)
    verdicts[SADDLE] = verdicts[SADDLE] & (falls | ~_on_bounds(problem, z))
    # A large error is that of an unknown that goes to zero, slowly, as for z³: the Hessian vanishes there.
    degenerate = torch.from_numpy(ledger.error > _DEGENERATE).to(z.device) | (least <= 0)
    verdicts[SADDLE] = verdicts[SADDLE] | (falls & degenerate)
    verdicts[FLAT] = flat & ~falls & ~rises
    ends = {SADDLE: int(Status.NOT_A_MINIMUM), FLAT: STALLED, UNDERFLOW: STALLED}
    verdicts[UNDERFLOW] = _underflows(problem, start, z)
    for why, which in verdicts.items():
        found = (ledger.status == CONVERGED) & which.cpu().numpy()
        ledger.end(found, ends[why], ledger.steps[found])
        for system in np.flatnonzero(found):
            ledger.reasons[int(system)] = why


def _on_bounds(problem: Problem, z: Tensor) -> Tensor:
    """The systems with a bound that does not hold its unknown back: half of all directions lead outside."""
    if problem.box is None or problem.unreduced is None:
        return torch.zeros_like(z[:, 0], dtype=torch.bool)
    on = problem.box.room(z) <= 0
    return (on & ~problem.box.held(z, -problem.unreduced.residual(z))).any(dim=1)


def _least_curvature(problem: Problem, z: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sign of the least eigenvalue of each system (0 at rounding), its direction, and zero Hessians."""
    n, eps = z.shape[1], problem.eps(z)
    if not dense_is_possible(z):
        return curvature_by_products(problem, z)
    hessian = _reduced_derivatives(problem, z)[1]
    scale, scaled = equilibrated(hessian)
    finite = torch.isfinite(scaled).all(dim=(1, 2))
    values, basis = torch.linalg.eigh(torch.where(finite.reshape(-1, 1, 1), scaled, 0.0))
    least = values[:, 0]
    bound = _RANK_UNITS * n * eps
    sign = torch.where(
        least < -_NEGATIVE_UNITS * bound, -1.0, torch.where(least <= bound, 0.0, 1.0)
    )
    flat = (hessian == 0).all(dim=(1, 2))
    return sign, (basis[:, :, 0] / scale).to(z.dtype), flat


def curvature_by_products(problem: Problem, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sign of the least eigenvalue of each system, its direction, and none with zero Hessians.

    By Lanczos' method with full reorthogonalisation, from a fixed random start.
    """
    linearization = problem.linearization(z)
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z)
    vector = first / _norm(first)
    basis: list[Tensor] = []
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for _ in range(min(_LANCZOS_STEPS, z.shape[1])):
        basis.append(vector)
        image = -linearization.vjp(vector).detach()
        diagonal.append((image * vector).sum(dim=1))
        for _ in range(2):
            for one in basis:
                image = image - (image * one).sum(dim=1, keepdim=True) * one
        length = _norm(image)
        beside.append(length.squeeze(1))
        vector = image / torch.where(length > 0, length, 1.0)
    small = torch.diag_embed(torch.stack(diagonal, dim=1))
    off = torch.diag_embed(torch.stack(beside[:-1], dim=1), 1) if len(beside) > 1 else 0
    matrix = (small + off + (off.mT if isinstance(off, Tensor) else 0)).double()
    values, vectors = torch.linalg.eigh(torch.nan_to_num(matrix))
    bound = _NEGATIVE_UNITS * problem.eps(z) * z.shape[1] ** 0.5 * values.abs().amax(dim=1)
    direction = torch.einsum("bkn,bk->bn", torch.stack(basis, dim=1), vectors[:, :, 0].to(z.dtype))
    least = values[:, 0]
    sign = torch.where(least < -bound, -1.0, torch.where(least <= bound, 0.0, 1.0))
    return sign, direction, torch.zeros_like(sign, dtype=torch.bool)


def _beside(
    objective: Objective, z: Tensor, start: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """Two masks: the objective falls, and it rises, on a side of `z` along a direction."""
    size = torch.maximum(z.abs(), start.abs())
    size = torch.where(size > 0, size, 1.0)
    longest = (direction.abs() / size).amax(dim=1, keepdim=True)
    move = _MOVE * direction / torch.where(longest > 0, longest, 1.0)
    here, there = objective.value(z), objective.value(start)
    sides = torch.stack([objective.value(z + move), objective.value(z - move)])
    noise = _FALL_UNITS * torch.finfo(z.dtype).eps * torch.maximum(here.abs(), there.abs())
    falls = (sides < here - noise).any(dim=0)
    return falls, (sides > here).any(dim=0)


def _underflows(problem: Problem, start: Tensor, z: Tensor) -> Tensor:
    """The systems with a derivative that falls out of the range of its dtype between start and `z`.

    As for roots (`false_zeros`): halving finds the last derivative before zero, which of an exponential has
    no square in the dtype.
    """
    none = torch.zeros_like(z[:, 0], dtype=torch.bool)
    suspect = (problem.residual(z) == 0) & (z != start)
    if problem.box is not None:  # On a bound it is zero by definition.
        suspect &= problem.box.room(z) > 0
    if not bool(suspect.any()):
        return none
    suspect &= problem.residual(start) != 0
    found = none
    for unknown in suspect.any(dim=0).nonzero().flatten().tolist():
        inside, outside = torch.zeros_like(z[:, :1]), torch.ones_like(z[:, :1])
        last = torch.full_like(z[:, 0], torch.inf)
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            part = problem.residual(start + middle * (z - start))[:, unknown]
            zero = (part == 0).unsqueeze(1)
            last = torch.where(zero.squeeze(1), last, part.abs())
            inside, outside = torch.where(zero, inside, middle), torch.where(zero, middle, outside)
        # Zero on all of the way but its first steps: the iterate has run far off.
        tiny = (last <= torch.finfo(z.dtype).tiny ** 0.5) | torch.isinf(last)
        found = found | (tiny & suspect[:, unknown])
    return found


def _norm(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True)
