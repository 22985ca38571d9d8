"""Claims of convergence examined: a root is accepted by an estimate of the error of `z`.

A small residual says nothing by itself: of `x³ + x = 5` from 10⁵ it is a million times smaller than at the
start where `x` is still 45. For a nonlinear root the driver therefore estimates, for each system that
claims to have converged, the step of Newton's method `δ = J⁻¹ F` that is still missing. With

    G = |J| |z|                      the size of the terms of each equation
    u_j = min_i G_i / |J_ij|         the least size of unknown j that any equation notices

the claim is accepted where `|δ_j| ≤ xtol · max(|z_j|, u_j)` for every unknown, or where every equation is
met to rounding, `|F_i| ≤ 4 eps G_i`. An unknown that goes to zero is measured by where it was:
`|δ_j| ≤ 1e-16 · |z0_j|`. Multiplying an equation or an unknown by a constant changes no verdict.

Source: Dennis & Schnabel 1983, section 7.2 (relative steps and typical sizes); Oettli & Prager 1964
(the componentwise backward error).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..interface.compiled_systems import NoDerivativeError
from ..interface.problem import Problem
from ..interface.tolerance import Budget, Tolerance
from .active import Active
from .ledger import Ledger
from .progress import CONVERGED, MAX_STEPS, STALLED

# The relative error of an unknown that is accepted at the default tolerance of each dtype; in half
# precision, where the residual is at its rounding level, a tenth.
_DEFAULT_XTOL = {torch.float64: 1e-8, torch.float32: 1e-4}
_COARSEST_XTOL = 0.1
# An asked relative tolerance on the residual loosens that on the unknown to so many times its value.
_LOOSENED = 100.0
# A residual of so many roundings of the terms of its equation is met exactly.
_ROUNDING_UNITS = 4
# An unknown is zero once its error is so small a part of its size at the start; with a looser tolerance,
# as many squares of it.
_ZERO = 1e-16
# The same, as a multiple, for a system that can come no closer.
_ZERO_AT_LAST = 1e4
# An error that a solver estimates from old factors must be so much smaller than the accepted one.
_SAFE = 0.1
# A step that does not reproduce the residual to this part of it solves no linear equation.
_REPRODUCED = 0.1
# The residual of a refused system must fall by this much more than its error is too large.
_FURTHER = 0.1
# Each refusal must bring the estimated error below this fraction of the one before.
_CLOSER = 0.5
# The same where no step solves the linear equation, so that the distance is not known.
_UNKNOWN_DISTANCE = 1e-3
# Dense Jacobians of a batch hold at most so many numbers; so many columns come from one batched product,
# which takes the time of one.
_MOST_ENTRIES, _MOST_UNKNOWNS = 2**23, 64


class Estimate(NamedTuple):
    """The missing Newton step, in units of the accepted size; entries are per system.

    Attributes:
        error: `max_j |δ_j| / max(|z_j|, u_j)`; infinite where no step solves the linear equation.
        to_zero: `max_j |δ_j| / |z0_j|` over the unknowns with a larger relative error than accepted.
        at_rounding: Every equation is met to rounding.
        residual: The residual at `z`, `(batch, n)`.
    """

    error: Tensor
    to_zero: Tensor
    at_rounding: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Demand:
    """The error that is accepted, and what a refusal asks for.

    Attributes:
        xtol: The relative error of each unknown that is accepted.
        zero: The part of its size at the start at which an unknown is zero.
    """

    xtol: float
    zero: float

    @staticmethod
    def of(dtype: torch.dtype, rtol: float | None) -> Demand:
        """The demand at the default tolerance of a dtype, or at the one that was asked for."""
        default = _DEFAULT_XTOL.get(dtype, _COARSEST_XTOL)
        xtol = default if rtol is None else min(_COARSEST_XTOL, max(_LOOSENED * rtol, default))
        return Demand(xtol, _ZERO * (xtol / default) ** 2)

    def met(self, estimate: Estimate) -> Tensor:
        """The systems that are accepted."""
        return (
            (estimate.error <= self.xtol) | (estimate.to_zero <= self.zero) | estimate.at_rounding
        )

    def closer(self, distance: Any, before: Any) -> Any:
        """True if a refused system has come close enough since the refusal before, or had none (NaN)."""
        return np.isnan(before) | (distance < _CLOSER * before)

    def reduction(self, error: np.ndarray) -> np.ndarray:
        """The factor by which the residual of a refused system must fall further."""
        missing = self.xtol / np.maximum(error, self.xtol)
        return _FURTHER * np.where(np.isfinite(error), missing, _UNKNOWN_DISTANCE)


def examinable(problem: Problem, z: Tensor) -> bool:
    """True for a nonlinear root with a derivative and few enough unknowns for dense Jacobians."""
    batch, n = z.shape
    few = 0 < n <= _MOST_UNKNOWNS and batch * n * n <= _MOST_ENTRIES
    nonlinear = problem.form == "root" and not problem.linear
    return nonlinear and problem.linearize is not None and few


def reason(error: float) -> str:
    """An account of a refused claim, for error messages."""
    return f"the residual is small, but no root is near: Newton's step there is {error:.1g} of an unknown"


class Acceptance:
    """Examines the systems of one solve that claim to have converged.

    Attributes:
        factor: For each system the factor on its tolerance that refusals have led to.
    """

    def __init__(
        self,
        ledger: Ledger,
        active: Active,
        tolerance: Tolerance,
        demand: Demand,
        budget: Budget,
        *,
        ends_itself: bool,
    ) -> None:
        batch = ledger.z.shape[0]
        self._ledger, self._active, self._budget, self._demand = ledger, active, budget, demand
        # The start at first, then the largest size that each unknown had.
        self._size, self._atol = ledger.z, tolerance.atol
        self._distance = np.full(batch, np.nan)
        """The distance to a root at the last refusal, relative to the start."""
        self.factor = np.ones(batch)
        self._ends_itself = ends_itself
        self._possible = bool((tolerance.rtol > 0).any()) and examinable(active.whole, ledger.z)

    def note(self, error: Tensor | None, converged: np.ndarray) -> None:
        """Accept `converged` systems whose solver knows by itself that the error is small."""
        if error is None or not self._possible:
            return
        known = self._active.spread(error.detach().cpu().numpy().astype(np.float64))
        small = converged & (known <= _SAFE * self._demand.xtol)
        self._ledger.error = np.where(small, known, self._ledger.error)

    def examine(self, *, can_go_on: bool) -> Tensor | None:
        """Accept or refuse the converged systems; those that are refused run again, or have stalled.

        Args:
            can_go_on: The solver may be started again where it ended.

        Returns:
            The residual at the kept iterates if a system runs again, else `None`.
        """
        ledger, demand = self._ledger, self._demand
        if not self._possible:
            return None
        converged = ledger.status == CONVERGED
        ledger.error = np.where(converged & (ledger.norm == 0), 0.0, ledger.error)
        claimed = converged & np.isnan(ledger.error) & (ledger.norm > self._atol)
        if not (claimed.any() and self._budget.evaluations_left > 0):
            return None
        try:
            estimate = self._estimate(claimed)
        except NoDerivativeError:  # Then nothing is known of the error.
            self._possible = False
            return None
        error, distance = (part.cpu().numpy() for part in (estimate.error, estimate.to_zero))
        refused = claimed & ~demand.met(estimate).cpu().numpy()
        ledger.error = np.where(claimed, error, ledger.error)
        closer = demand.closer(distance, self._distance) | self._ends_itself
        self._distance = np.where(refused, distance, self._distance)
        spent = np.asarray(self._budget.spent(ledger.steps))
        over = refused & (spent | ~closer | (not can_go_on))
        ends = np.where(spent & can_go_on, MAX_STEPS, STALLED)
        ledger.end(over, ends[over], ledger.steps[over])
        for system in np.flatnonzero(over):
            ledger.reasons[int(system)] = reason(float(error[system]))
        again = refused & ~over
        if not again.any():
            return None
        wanted = demand.reduction(error) * ledger.norm / np.where(again, ledger.threshold, 1.0)
        self.factor = np.where(again, wanted * self.factor, self.factor)
        ledger.error = np.where(again, np.nan, ledger.error)
        ledger.reopen(again)
        return estimate.residual

    def reconsider(self) -> None:
        """Accept refused systems that have since come close enough, but could not come as close as asked."""
        ledger, demand = self._ledger, self._demand
        if not self._possible or (self.factor == 1.0).all():
            return
        stuck = (ledger.status == STALLED) | (ledger.status == MAX_STEPS)
        with np.errstate(divide="ignore", invalid="ignore"):
            near = ledger.norm <= ledger.threshold / self.factor
        stuck &= near & (self.factor < 1.0)
        if not (stuck.any() and self._budget.evaluations_left > 0):
            return
        estimate = self._estimate(stuck)
        # A multiple root at zero is reached up to the rounding of a singular Jacobian.
        accepted = demand.met(estimate) | (estimate.to_zero <= _ZERO_AT_LAST * demand.zero)
        found = stuck & accepted.cpu().numpy()
        ledger.error = np.where(found, estimate.error.cpu().numpy(), ledger.error)
        ledger.end(found, CONVERGED, ledger.steps[found])

    def _estimate(self, claimed: np.ndarray) -> Estimate:
        """The estimate of all systems; of the `claimed` alone if they can be evaluated alone."""
        problem, z = self._active.restore(), self._ledger.z
        # An unknown that starts at zero is measured by where it has been since.
        self._size = torch.maximum(self._size.abs(), problem.size(z))
        if problem.restrict is None or 2 * claimed.sum() > len(claimed):
            return estimated(problem, z, self._size, self._demand.xtol)
        rows = torch.from_numpy(np.flatnonzero(claimed)).to(z.device)
        some = estimated(problem.restrict(rows), z[rows], self._size[rows], self._demand.xtol)

        def everyone(part: Tensor) -> Tensor:
            return part.new_zeros(len(claimed), *part.shape[1:]).index_copy(0, rows, part)

        return Estimate(*map(everyone, some))


def estimated(problem: Problem, z: Tensor, first: Tensor, xtol: float) -> Estimate:
    """The missing Newton step at `z`; one evaluation and `n` products.

    Args:
        problem: The systems.
        z: Their iterates.
        first: The sizes that the unknowns had, by which one that goes to zero is measured.
        xtol: The relative error that is accepted.
    """
    linearization = problem.linearization(z)
    residual = linearization.residual
    assert residual is not None  # for the type checker: the problem is not linear
    residual = residual.detach()
    with torch.no_grad():
        matrix = linearization.jacobian(z).detach().to(residual.dtype)
        size = problem.size(z)
        entries = matrix.abs()
        terms = _product(entries, size)
        least = torch.where(entries > 0, terms.unsqueeze(2) / entries, torch.inf).amin(dim=1)
        typical = torch.maximum(size, torch.where(torch.isfinite(least), least, 0.0))
        # Of an unknown that is exactly zero only the start tells a size.
        unit = torch.where(typical > 0, typical, torch.where(first > 0, first, 1.0))
        rows = torch.where(terms > 0, terms, _product(entries, unit))
        rows = torch.where(rows > 0, rows, 1.0).unsqueeze(2)
        scaled = matrix * unit.unsqueeze(1) / rows
        right = residual.unsqueeze(2) / rows
        step = torch.linalg.solve_ex(scaled, right).result
        off = (torch.bmm(scaled, step) - right).abs().amax(dim=(1, 2))
        solves = off <= _REPRODUCED * right.abs().amax(dim=(1, 2))
        step = (step.squeeze(2) * unit).abs()
        relative = torch.where(step > 0, step / typical, 0.0)
        distance = step / torch.where(first > 0, first, typical).clamp_min(
            torch.finfo(z.dtype).tiny
        )
        met = residual.abs() <= _ROUNDING_UNITS * problem.eps(z) * terms
        return Estimate(
            torch.where(solves, relative.amax(dim=1), torch.inf),
            torch.where(solves, distance.masked_fill(relative <= xtol, 0.0).amax(dim=1), torch.inf),
            met.all(dim=1),
            residual,
        )


def _product(matrices: Tensor, rows: Tensor) -> Tensor:
    return torch.bmm(matrices, rows.unsqueeze(2)).squeeze(2)
