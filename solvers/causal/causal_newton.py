"""Newton's method for sequences: one scan over time in each step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...options.options import check_integer, is_number, one_of
from ..driving.ledger import Ledger
from ..driving.progress import REREAD_MARGIN, Progress
from ..driving.rounding import TIME_STEP_UNITS
from ..interface.goal import Goal
from ..interface.norms import rms
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import RunOutcome, Solver, Transpose, WholeSolver
from ..interface.tolerance import threshold
from ..newton.parabola import SUFFICIENT_DECREASE
from .bidiagonal import Bidiagonal, Time, TimeAxis, assemble, solve_recurrence

# Pairs to try in turn: the limit on the norms of the A_t, and the step length. Newton's step comes first,
# then one without amplification, one without coupling, and shorter ones of each time step by itself.
_TRIALS = ((float("inf"), 1.0), (1.0, 1.0), *((0.0, 0.25**k) for k in range(7)))
# A trial is rejected where the residual of a prefix grows by more than this factor, or where that of the
# first time step that is not fixed does not fall.
_GROWTH = 10.0
# A linear equation stalls after so many steps without progress: each step solves it up to rounding.
_LINEAR_PATIENCE = 3


@dataclass(frozen=True)
class CausalNewton(WholeSolver):
    """Newton steps for sequences in which each time step depends on itself and the one before.

    With `J` block-bidiagonal along time the Newton equation `J δ = −r` is an affine recurrence
    `δ_t = A_t δ_{t−1} + b_t`, and is solved by one associative scan: `2 log₂ T` parallel operations
    in place of `T` sequential ones. For a recurrence `z_t = f(z_{t−1}, x_t)` each step makes at least one
    more time step exact, so that the solve ends after at most `T` steps; a few are usual. For equations
    that couple a time step to itself as well (a cell of TrellisNet with kernel 2), the blocks on the
    diagonal are inverted.

    The blocks come from `2 · block + 3` products with the Jacobian, whatever `T`, and are
    checked: an equation of another structure is an error. Linear equations, the adjoint among them,
    may have the blocks above the diagonal instead; time is then reversed, and one scan solves them.

    A time step is fixed once it and all before it meet their tolerance. Its value and its tolerance do
    not depend on later time steps, to the last bit.

    Where the residual of a prefix grows more than tenfold in a step, or is not finite, the step is replaced
    from there on: first by one with the norms of the `A_t` limited to 1, which amplifies nothing; then by
    one without coupling, `A_t = 0`; then by shorter ones. If none is better, the time steps stay as they
    are. The residual of the first time step that is not yet fixed must fall.

    Attributes:
        block: Unknowns per time step. A system of `n` unknowns has `T = n / block` time steps.
        time: The place of the time axis of `z`: `"first"` after the batch, `(batch, T, ...)`; or
            `"last"`, `(batch, ..., T)`. With `"last"` a system may have several leaves.
        jacobian: `"full"` blocks, or their `"diagonal"` alone (quasi-Newton): scans with `block`
            in place of `block³` operations and `block` in place of `block²` numbers per time step,
            in more steps.
        damping: In `[0, 1]`. The `A_t` are multiplied by `1 − damping`: 0 is Newton's method, 1
            solves each time step for itself, as Jacobi's method does.

    Memory is `3 · block²` numbers per time step and system (`"diagonal"`: `3 · block`).

    Raises:
        ValueError: An option is out of range; when solving, `block` does not divide the number of
            unknowns, or the Jacobian is not block-bidiagonal.

    Source: Lim et al. 2024, arXiv:2309.12252 (DEER); Gonzalez et al. 2024, arXiv:2407.19115
    (quasi-DEER, the bound of T steps, damping); Curtis, Powell & Reid 1974 (the products).

    Examples:
        >>> import torch, implicitly
        >>> x = torch.linspace(-1, 1, 1000, dtype=torch.float64).unsqueeze(1)
        >>> def f(z, x):
        ...     before = torch.cat((torch.zeros_like(z[:1]), z[:-1]))
        ...     return torch.tanh(0.9 * before + x)
        >>> solver = implicitly.CausalNewton(block=1)
        >>> solution = implicitly.fixed_point(f, torch.zeros_like(x), x, solver=solver)
        >>> bool(solution.converged), int(solution.steps) < 10
        (True, True)
    """

    block: int
    time: Time = "first"
    jacobian: Literal["full", "diagonal"] = "full"
    damping: float = 0.0
    needs: ClassVar[str] = "products with the Jacobian"
    suits: ClassVar[str] = "recurrences and causal models, all times at once"

    default_max_steps: ClassVar[int] = 200

    def __post_init__(self) -> None:
        check_integer("block", self.block, 1)
        one_of("time", self.time, ("first", "last"))
        one_of("jacobian", self.jacobian, ("full", "diagonal"))
        if not (is_number(self.damping, 0) and self.damping <= 1):
            raise ValueError(f"damping must be in [0, 1], got {self.damping!r}")

    def for_derivative(self, transpose: Transpose | None) -> Solver | None:
        # Diagonals of the blocks may leave much of the equation, and damping belongs to nonlinear ones.
        return replace(self, damping=0.0) if self.jacobian == "full" else None

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        n = z.shape[1]
        if n % self.block:
            raise ValueError(
                f"CausalNewton(block={self.block}) needs a number of unknowns per system that is a "
                f"multiple of block, got {n}"
            )
        return _Run(self, problem, z, residual, goal).outcome()

    def assemble(self, problem: Problem, z: Tensor) -> Bidiagonal:
        """The Jacobian at `z`, as lower matrices in the order of time or against it."""
        linearization = problem.linearization(z)
        # A product with the transpose costs a third of one with `J`; a linear problem may have no transpose.
        product = linearization.jvp if problem.linear else linearization.vjp
        found = assemble(
            product,
            z,
            TimeAxis(self.block, self.time),
            full=self.jacobian == "full",
            eps=problem.eps(z),
            described="CausalNewton",
        )
        return found if problem.linear else found.transposed


class _Run:
    """One solve. Tensors `(batch, T, ...)` are in the order in which time steps depend on each other."""

    def __init__(
        self, solver: CausalNewton, problem: Problem, z: Tensor, residual: Tensor, goal: Goal
    ) -> None:
        self.solver, self.problem, self.goal = solver, problem, goal
        self.axis = TimeAxis(solver.block, solver.time)
        self.z, self.residual = z, residual
        self.reversed = False
        self.first = residual
        self.ledger = Ledger(z, callback=goal.callback)
        self.settled = torch.zeros_like(self._ordered(z)[..., 0], dtype=torch.bool)
        self.most_settled = np.zeros(z.shape[0], dtype=np.int64)
        self.progress = Progress.start(z.shape[0])

    def outcome(self) -> RunOutcome:
        jacobian, step = self._jacobian(), 0
        while not self._look(step, jacobian):
            if self.goal.budget.spent(step):
                self._end(self.ledger.running, Status.MAX_STEPS, step)
                break
            if step > 0 and not self.problem.linear:
                jacobian = self._jacobian()
            step += 1
            self._step(step, jacobian)
        self.ledger.z = self.z
        return self.ledger.outcome()

    def _jacobian(self) -> Bidiagonal:
        found = self.solver.assemble(self.problem, self.z)
        if found.upper != self.reversed:
            self.reversed = found.upper
            self.settled = torch.zeros_like(self.settled)
        return found.forward

    def _ordered(self, flat: Tensor) -> Tensor:
        steps = self.axis.split(flat)
        return steps.flip(1) if self.reversed else steps

    def _flat(self, steps: Tensor) -> Tensor:
        return self.axis.join(steps.flip(1) if self.reversed else steps)

    def _tolerance(self, jacobian: Bidiagonal) -> Tensor:
        """The largest residual norm of a solved time step, for each of them, `(batch, T)`.

        Its square is relative to `½ s_t² + ½ (s_1² + … + s_t²) / T`, with `s` the sizes to which the
        tolerance of the whole system is relative. Over all time steps these add up to at most the sum of
        the `s_t²`, so that the whole system meets its own tolerance.
        """
        goal, steps = self.goal, self._ordered(self.z)
        if goal.reference is None:
            squares = _rms(steps).square()
        else:
            own = rms(self.first)
            share = torch.where(own > 0, goal.reference / own, 1.0).double()
            squares = (share.unsqueeze(1) * _rms(self._ordered(self.first))).square()
        reference = (0.5 * (squares + squares.cumsum(dim=1) / squares.shape[1])).sqrt()
        rtol, atol = (bound.unsqueeze(1) for bound in goal.tolerance.on(reference))
        asked = threshold(rtol, atol, reference)
        size = TIME_STEP_UNITS * self.problem.eps(self.z) * jacobian.size(steps)
        rounding = size.double() / self.solver.block**0.5
        return torch.maximum(REREAD_MARGIN * asked, rounding)

    def _look(self, step: int, jacobian: Bidiagonal) -> bool:
        """Fix prefixes and end systems; true where all have ended."""
        met = _rms(self._ordered(self.residual)) <= self._tolerance(jacobian)
        self.settled |= met.cumprod(dim=1).bool()
        read = torch.stack((self.settled.sum(dim=1).double(), rms(self.residual).double()))
        settled, norm = read.cpu().numpy()
        running = self.ledger.running
        self.ledger.norms = np.where(running, norm, np.nan)
        if self.ledger.announce(step, lambda: self.z):
            self._end(running, Status.MAX_STEPS, step)
        self._end(settled == self.settled.shape[1], Status.CONVERGED, step)
        self.progress = self.progress.after(norm, step, excused=settled > self.most_settled)
        self.most_settled = np.maximum(self.most_settled, settled.astype(np.int64))
        patience = _LINEAR_PATIENCE if self.problem.linear else self.goal.stopping.patience
        self._end(step - self.progress.since >= patience, Status.STALLED, step)
        return self.ledger.all_ended

    def _end(self, which: np.ndarray, status: Status, step: int) -> None:
        self.ledger.end(which & self.ledger.running, status, step)

    def _step(self, step: int, jacobian: Bidiagonal) -> None:
        """Take, for every time step, the first trial that does no harm up to there."""
        z, residual = self._ordered(self.z), self._ordered(self.residual)
        ended = torch.from_numpy(~self.ledger.running).to(z.device)
        fixed = self.settled | ended.unsqueeze(1)
        # A fixed time step does not move, and passes no move on.
        slopes, offsets = jacobian.recurrence(-residual.masked_fill(fixed.unsqueeze(2), 0.0))
        slopes = (1.0 - self.solver.damping) * slopes
        next_to_settle = ~fixed & (fixed.cumsum(dim=1) == torch.arange(z.shape[1], device=z.device))
        tolerance, before = _prefixes(self._tolerance(jacobian)), _prefixes(_rms(residual))
        decided, new = fixed, z
        for limit, length in _TRIALS[:1] if self.problem.linear else _TRIALS:
            move = length * solve_recurrence(slopes, offsets, limit)
            finite = move.isfinite().all(dim=2)
            trial = z + move.masked_fill(~finite.unsqueeze(2), 0.0)
            trial_residual = self.problem.residual(self._flat(trial))
            norms = _prefixes(_rms(self._ordered(trial_residual)))
            growth = torch.where(next_to_settle, 1.0 - SUFFICIENT_DECREASE * length, _GROWTH)
            harmless = norms <= torch.maximum(tolerance, growth * before)
            if self.problem.linear:
                harmless = norms.isfinite()
            good = (fixed | harmless & finite).cumprod(dim=1).bool()
            new = torch.where((good & ~decided).unsqueeze(2), trial, new)
            decided = decided | good
            if bool(decided.all()):
                break
        self.z = self._flat(new)
        if (limit, length) == _TRIALS[0] and bool(decided.all()):
            self.residual = trial_residual
            return
        self.residual = self.problem.residual(self.z)
        # If the next time step to be fixed cannot move, no later one can.
        stuck = (next_to_settle & ~decided).any(dim=1)
        infinite = stuck & ~(self.residual.isfinite().all(dim=1) & norms.isfinite().all(dim=1))
        unsolved = stuck & (next_to_settle & ~finite).any(dim=1)
        for which, status in (
            (infinite, Status.NON_FINITE),
            (unsolved, Status.LINEAR_SOLVE_FAILED),
            (stuck, Status.STALLED),
        ):
            self._end(which.cpu().numpy(), status, step)


def _rms(steps: Tensor) -> Tensor:
    """Root-mean-square norms of the time steps of `(batch, T, d)`, in float64, `(batch, T)`."""
    return rms(steps.double())


def _prefixes(norms: Tensor) -> Tensor:
    """Norms of all prefixes from those of the time steps."""
    return norms.square().cumsum(dim=1).sqrt()
