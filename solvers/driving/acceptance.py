"""Claims of convergence examined: a solution is accepted by an estimate of the error of `z`.

A small residual says nothing by itself: of `x³ + x = 5` from 10⁵ it is a million times smaller than at the
start where `x` is still 45, and an iteration that contracts by 0.999 has a thousand times the error of its
residual. For a nonlinear equation the driver therefore estimates, for each system that claims to have
converged, the step of Newton's method `δ` that is still missing (`estimate`).

The claim is accepted where `|δ_j| ≤ xtol · max(|z_j|, u_j)` for every unknown, `u_j` being its least size
that any equation notices, or where every equation of a root is met to rounding. An unknown that goes to
zero is measured by where it was: `|δ_j| ≤ 1e-16 · |z0_j|`. Multiplying an equation or an unknown by a
constant changes no verdict. Of a fixed point mostly the observed contraction tells (`contraction`).
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..interface.compiled_systems import NoDerivativeError
from ..interface.tolerance import Budget, Tolerance
from .active import Active
from .demand import SAFE, Demand, examinable, reason
from .estimate import Estimate, estimated
from .false_zeros import FALSE_ZERO, false_zeros, flat_zeros, hidden_zeros
from .ledger import Ledger
from .limits import ResidualLimits
from .minima import dense_is_possible, estimated_minimum
from .progress import CONVERGED, MAX_STEPS, STALLED
from .refusal import end_refused

# A system that can come no closer is zero at so many times what is zero elsewhere.
_ZERO_AT_LAST = 1e4
# An observed error is believed where the estimate is at most so many times what is accepted.
_SLACK = 2.0
# Errors of time steps are estimated up to this tolerance. Looser ones, as in training, would pay for it
# with the memory of a graph; an error is then at least that of the time steps before.
_MOST_OF_SEQUENCES = 1e-3
# A time step is accepted with an error, most of it inherited, of so many times what is accepted of others.
_INHERITED = 10.0
# A system with an equation above its limit goes on to a norm at which it is this far below.
_BELOW = 0.9
# Each such refusal must lower the norm by this factor, so that the last one is not far.
_LOWER = 0.99


class Acceptance:
    """Examines the systems of one solve that claim to have converged.

    Attributes:
        factor: For each system the factor on its tolerance that refusals have led to.
        atol: Absolute tolerances, at which claims are taken at their word.
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
        together: int = 1,
        limits: ResidualLimits | None = None,
    ) -> None:
        batch = ledger.z.shape[0]
        self._ledger, self._active, self._budget, self._demand = ledger, active, budget, demand
        # The start at first, then the largest size that each unknown had.
        self._start, self._size, self._limits = ledger.z, ledger.z, limits
        self.atol = tolerance.atol
        self._over = np.full(batch, np.nan)
        """The norm at which an equation was last above its limit."""
        self._distance = np.full(batch, np.nan)
        """The distance to a solution at the last refusal, relative to the start."""
        self.factor = np.ones(batch)
        self._refused = np.zeros(batch, dtype=bool)
        """Systems of which a claim was refused or put off."""
        self._observed = np.full(batch, np.nan)
        """Errors of slow fixed points, which serve where nothing better is found out."""
        self._settled = np.zeros(batch, dtype=bool)
        """Systems whose refusal is final."""
        self._last: tuple[Tensor, np.ndarray, Estimate] | None = None
        self._ends_itself = ends_itself
        nonlinear = not active.whole.linear and ledger.z.numel() > 0
        relative = nonlinear and (limits is not None or bool((tolerance.rtol > 0).any()))
        self._observes = relative and active.whole.form == "fixed_point"
        # An error that nobody asks for is stated where it costs little: of a fixed point by the contraction.
        most = math.inf if together == 1 else _MOST_OF_SEQUENCES
        cheap = self._observes and not demand.xtol < most
        self._possible = relative and examinable(active.whole) and not cheap
        self._together = together
        self._form = active.whole.form
        self._eps = active.whole.eps(ledger.z)

    def note(self, error: Tensor | None, converged: np.ndarray) -> None:
        """Accept `converged` roots whose solver knows by itself that the error is small."""
        if error is None or not self._possible or self._form != "root":
            return
        known = self._active.spread(error.detach().cpu().numpy().astype(np.float64))
        # Of a residual of zero it is not known whether rounding made it.
        small = converged & (known <= SAFE * self._demand.xtol) & (self._ledger.norm > 0)
        self._ledger.error = np.where(small, known, self._ledger.error)

    def settle(self, refused: np.ndarray) -> None:
        """Leave refused systems as they are: a solve within this one has examined them."""
        self._settled |= refused

    def put_off(
        self,
        claims: np.ndarray,
        norm: np.ndarray,
        error: np.ndarray,
        far: np.ndarray,
        slow: np.ndarray,
    ) -> np.ndarray:
        """The fixed points among `claims` that go on, since their observed `error` is too large.

        Of those that went `far`, or have no residual left, the contraction tells nothing: they are examined.
        So are `slow` ones, where an extrapolation may have hidden the slowest part of the error.

        In half precision, where residuals are at their rounding level from the first claim on, none does.
        """
        if not self._observes:
            return np.zeros_like(claims)
        large = error > self._demand.xtol
        late = claims & large & (norm > self._at_its_word) & np.bool_(self._demand.is_fine)
        self._refused |= late
        known = claims & ~late & ~np.isnan(error)
        # A contraction does not tell what a time step inherits.
        inherits = self._together > 1
        small = known & ~((far | slow | (norm == 0) | inherits) & self._possible)
        self._observed = np.where(known & slow & ~far, error, self._observed)
        self._ledger.error = np.where(small, error, self._ledger.error)
        return np.asarray(late)

    def examine(self, *, can_go_on: bool) -> Tensor | None:
        """Accept or refuse the converged systems; those that are refused run again, or have stalled.

        Args:
            can_go_on: The solver may be started again where it ended.

        Returns:
            The residual at the kept iterates if a system runs again, else `None`.
        """
        over, far = self.examine_equations(can_go_on=can_go_on), self._examine_errors(can_go_on)
        return over if far is None else far

    def examine_equations(self, *, can_go_on: bool) -> Tensor | None:
        """The same by the limits on single equations alone, where there are any."""
        ledger, limits = self._ledger, self._limits
        claimed = ledger.status == CONVERGED
        if limits is None or not claimed.any():
            return None
        residual = self._active.restore().residual(ledger.z)
        excess = limits.excess(residual).cpu().numpy()
        refused = claimed & ~(excess <= 1)
        if not refused.any():
            return None
        lower = np.isnan(self._over) | (ledger.norm < _LOWER * self._over)
        self._over = np.where(refused, ledger.norm, self._over)
        hopeless = ~lower | ~np.isfinite(excess)
        over = end_refused(
            ledger, self._budget, refused, hopeless, can_go_on, partial(limits.account, residual)
        )
        self._settled |= over
        again = refused & ~over
        if not again.any():
            return None
        wanted = _BELOW / excess * ledger.norm / np.where(again, ledger.threshold, 1.0)
        self.factor = np.where(again, wanted * self.factor, self.factor)
        ledger.reopen(again)
        return residual

    def _examine_errors(self, can_go_on: bool) -> Tensor | None:
        """The same by the estimated errors alone."""
        ledger, demand = self._ledger, self._demand
        if not self._possible:
            return None
        zero = ledger.norm == 0
        claimed = (ledger.status == CONVERGED) & np.isnan(ledger.error)
        if (zero := zero & claimed).any():
            # A start that solves its equation exactly is taken at its word.
            zero &= (ledger.z != self._start).any(dim=1).cpu().numpy()
        claimed &= (ledger.norm > self._at_its_word) | zero
        if not (claimed.any() and not self._budget.exhausted):
            return None
        estimate = self._estimate(claimed)
        if estimate is None:
            return None
        error, distance = (part.cpu().numpy() for part in (estimate.error, estimate.to_zero))
        accepted = demand.met(estimate, self._form).cpu().numpy()
        stated = estimate.stated.cpu().numpy()
        slow = ~np.isnan(self._observed)
        if slow.any():
            unsolved = slow & np.isinf(error)
            stated = np.where(unsolved, self._observed, stated)
            accepted |= unsolved | (slow & (error <= _SLACK * demand.xtol))
        refused = claimed & ~accepted
        ledger.error = np.where(claimed, stated, ledger.error)
        lost = claimed & zero
        if lost.any():
            lost = self._lost(lost, error)
        refused |= lost
        self._settled |= lost
        # A value must not depend on time steps after it: none goes on for them.
        if self._together > 1:
            refused &= error > _INHERITED * demand.xtol
            can_go_on = False
        closer = demand.closer(distance, self._distance) | self._ends_itself
        self._distance = np.where(refused, distance, self._distance)
        self._refused |= refused

        def account(system: int) -> str:
            if lost[system]:
                return FALSE_ZERO
            return reason(float(error[system]), self._form, self._together > 1)

        # A residual of zero cannot fall further.
        hopeless = ~closer | lost | (ledger.norm == 0)
        over = end_refused(ledger, self._budget, refused, hopeless, can_go_on, account)
        again = refused & ~over
        if not again.any():
            return None
        wanted = demand.reduction(error) * ledger.norm / np.where(again, ledger.threshold, 1.0)
        self.factor = np.where(again, wanted * self.factor, self.factor)
        ledger.error = np.where(again, np.nan, ledger.error)
        ledger.reopen(again)
        return estimate.residual

    def reconsider(self, explained: np.ndarray) -> None:
        """Accept systems that could not come as close as asked, and come as close as they can.

        These are refused ones that have come close enough since, and those with a residual that rounding
        explains: of a nonlinear root only where it does so for every equation.

        Args:
            explained: The systems whose residual norm rounding explains.
        """
        ledger, demand = self._ledger, self._demand
        stuck = self._refused & ((ledger.status == STALLED) | (ledger.status == MAX_STEPS))
        with np.errstate(divide="ignore", invalid="ignore"):
            stuck &= ledger.norm <= ledger.threshold / self.factor
        # The value is rounded, whatever the equation says.
        ledger.error = np.maximum(ledger.error, self._eps)
        if self._together > 1 and not self._possible:
            ledger.error = self._inherited(ledger.error)
        asked = (stuck | explained) & ~self._settled
        if (
            self._active.whole.objective is not None
        ):  # Its gradient at the start may be as small as rounding.
            ended = (ledger.status == STALLED) | (ledger.status == MAX_STEPS)
            asked |= ended & ~self._settled & np.isfinite(ledger.norm)
        if self._limits is not None:
            asked = self._within_limits(asked)
        if not asked.any():
            return
        estimate = None
        if self._possible and not self._budget.exhausted:
            estimate = self._estimate(asked)
        if estimate is None:  # A residual that does not fall any more is all there is to know.
            no_root = np.full_like(asked, self._form == "fixed_point")
            found = asked & (explained | ((ledger.status == STALLED) & no_root))
            found |= asked & math.isinf(demand.xtol)
        else:
            # A multiple root at zero is reached up to the rounding of a singular Jacobian.
            accepted = demand.met(estimate) | (estimate.to_zero <= _ZERO_AT_LAST * demand.zero)
            found = asked & accepted.cpu().numpy()
            ledger.error = np.where(asked, estimate.stated.cpu().numpy(), ledger.error)
        for system in np.flatnonzero(stuck & ~found):
            why = reason(float(ledger.error[system]), self._form, self._together > 1)
            ledger.reasons.setdefault(int(system), why)
        ledger.end(found, CONVERGED, ledger.steps[found])

    def _within_limits(self, asked: np.ndarray) -> np.ndarray:
        """The systems among `asked`, or that went on for a limit, in which no equation exceeds its own."""
        ledger, limits = self._ledger, self._limits
        assert limits is not None  # for the type checker
        asked = asked | (~np.isnan(self._over) & (ledger.status != CONVERGED))
        if not asked.any():
            return asked
        residual = self._active.restore().residual(ledger.z)
        above = asked & ~(limits.excess(residual).cpu().numpy() <= 1)
        for system in np.flatnonzero(above):
            ledger.reasons[int(system)] = limits.account(residual, int(system))
        return np.asarray(asked & ~above)

    def _inherited(self, error: np.ndarray) -> np.ndarray:
        """Errors of time steps, none of which is below that of one before it."""
        by_sequence = error.reshape(-1, self._together)
        largest = np.fmax.accumulate(by_sequence, axis=1)
        return np.where(np.isnan(by_sequence), np.nan, largest).reshape(-1)

    def _lost(self, zero: np.ndarray, error: np.ndarray) -> np.ndarray:
        """The systems with a residual of zero that is no root."""
        problem, start, z = self._active.whole, self._start, self._ledger.z
        hidden = np.zeros_like(zero)
        if self._form == "root":
            hidden = zero & hidden_zeros(problem, start, z)
        doubted = zero & ~hidden & (~(error <= self._demand.xtol) | flat_zeros(problem, start, z))
        if doubted.any():
            doubted &= false_zeros(problem, start, z)
        return np.asarray(hidden | doubted)

    @property
    def _at_its_word(self) -> np.ndarray:
        """The norms up to which no error is asked for."""
        return self.atol if self._limits is None else np.full_like(self.atol, -np.inf)

    def _estimate(self, claimed: np.ndarray) -> Estimate | None:
        """The estimate for the `claimed` systems; `None` if there is no derivative."""
        problem, z = self._active.restore(), self._ledger.z
        if self._last is not None and self._last[0] is z and not (claimed & ~self._last[1]).any():
            return self._last[2]
        # An unknown that starts at zero is measured by where it has been since.
        self._size = torch.maximum(self._size.abs(), problem.size(z))
        which, size = torch.from_numpy(claimed).to(z.device), self._size
        if problem.box is not None:
            size = problem.box.size(z, size)
        try:
            if problem.objective is not None and dense_is_possible(z):
                estimate = estimated_minimum(problem, z, size, self._demand.xtol)
            else:
                estimate = estimated(problem, z, size, self._demand.xtol, which, self._together)
        except NoDerivativeError:  # Then nothing is known of the error.
            self._possible = False
            return None
        self._last = z, claimed, estimate
        return estimate
