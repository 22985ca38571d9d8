"""Polyalgorithm: several solvers in turn, each on the systems that the ones before left unsolved."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..driving.driver import solve
from ..driving.ledger import Ledger
from ..driving.progress import FAR
from ..interface.check import Check, Watcher
from ..interface.goal import Goal
from ..interface.norms import rms
from ..interface.problem import Problem
from ..interface.scale import first_step
from ..interface.solution import Status
from ..interface.solver import RunOutcome, Solver, Transpose, WholeSolver
from ..linear.dense_lu import DenseLU
from .edges import at_edge, beside
from .members import default_members
from .own_units import mixed, solved_in_own_units

# The best iterate is another start where its residual is below this fraction of the first.
_LOWER = 0.9


@dataclass
class Winner:
    """Memory of a `Polyalgorithm` between calls.

    Attributes:
        member: The member that solved most systems in the last call, or `None` before the first
            call and after `reset`.

    Examples:
        >>> import torch, implicitly
        >>> solver = implicitly.Polyalgorithm()
        >>> z = implicitly.root(lambda z: z**2 - 2, torch.tensor(1.0), solver=solver).value
        >>> type(solver.winner.member).__name__
        'Newton'
        >>> solver.winner.reset()
        >>> solver.winner
        Winner(member=None)
    """

    member: Solver | None = None

    def reset(self) -> None:
        """Forget the winner: the next call starts with the first member again."""
        self.member = None


@dataclass(frozen=True)
class Polyalgorithm(WholeSolver):
    """Try several solvers in turn until every system is solved: the default of `root`.

    Each member begins at the start of the solve with every unsolved system, since where one stalls others
    would too; of a linear equation it goes on from the best iterate. If all have failed, those that take
    steps begin once more at the best iterate, unless that is far out. Its tolerance is that of the whole
    solve; solved systems are fixed and cost nothing more. An equation that the first member solves costs
    what that member costs. A member may diverge for a while and return: only NaN, its own verdict or a
    limit ends it, and the best iterate is kept in any case.

    Every member but the last may use half of the steps and evaluations that are left of the limits when
    its turn comes. Without a limit each member has its own default.

    The member that solved most systems is remembered, and the next call of the same solver object
    (a warm start, the next batch of a layer) begins with it. With `remember=False` answers do not depend
    on earlier calls; `winner.reset()` forgets once. Copies by `dataclasses.replace` share `winner`;
    `copy.deepcopy` and pickle copy it. Threads may share a solver: the winner of the call that ends last
    is remembered.

    Attributes:
        members: Solvers, in order; `None` to choose by size (`default_members`).
        remember: Begin with the winner of the last call.
        winner: The member that is remembered.

    Raises:
        TypeError: `members` are not solvers.
        ValueError: There are no members.

    Source: Rice 1976 (selection of algorithms); Rheinboldt 1998, chapter 6 (the methods combined here).

    Examples:
        >>> import torch, implicitly
        >>> def F(z):  # Freudenstein and Roth: a line search alone ends in a local minimum
        ...     x, y = z
        ...     return torch.stack((x - y**3 + 5 * y**2 - 2 * y - 13, x + y**3 + y**2 - 14 * y - 29))
        >>> start = torch.tensor([0.5, -2.0], dtype=torch.float64)
        >>> z = implicitly.root(F, start, solver=implicitly.Polyalgorithm()).value
        >>> [round(entry, 6) for entry in z.tolist()]
        [5.0, 4.0]
    """

    members: tuple[Solver, ...] | None = None
    remember: bool = True
    winner: Winner = field(default_factory=Winner, compare=False, repr=False)
    needs: ClassVar[str] = "what its members need"
    suits: ClassVar[str] = "the default for roots: several solvers in turn"

    def __post_init__(self) -> None:
        if self.members is None:
            return
        if not isinstance(self.members, (tuple, list)):
            raise TypeError(f"members must be a tuple of solvers or None, got {self.members!r}")
        if not self.members:
            raise ValueError("members must hold at least one solver, got none")
        for member in self.members:
            if not isinstance(member, Solver):
                raise TypeError(f"members must be solvers such as Newton(), got {member!r}")
        object.__setattr__(self, "members", tuple(self.members))

    @property
    def keeps_batch(self) -> bool:
        return any(member.keeps_batch for member in self.members or ())

    def for_derivative(self, transpose: Transpose | None) -> Solver | None:
        solved = self.winner.member if self.remember else None
        if solved is None and self.members is not None:
            solved = self.members[0]
        return None if solved is None else solved.for_derivative(transpose)

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        members = self._order(problem, z)
        # Factors of dense matrices have units of their own.
        if not isinstance(members[0], DenseLU) and mixed(problem, residual):
            return solved_in_own_units(problem, members, z, residual, goal)
        relay = _Relay(problem, goal, z, residual)
        for position, member in enumerate(members):
            relay.hand_to(member, last=position == len(members) - 1)
            if relay.over:
                break
        if not (problem.linear or relay.over) and relay.begin_at_best():
            for position, member in enumerate(members):
                # Members that run whole are last resorts, and look at more than the start anyway.
                if not (relay.over or isinstance(member, WholeSolver)):
                    relay.hand_to(member, last=True, index=position)
        if self.remember and max(relay.solved) > 0:
            self.winner.member = members[int(np.argmax(relay.solved))]
        return relay.outcome()

    def _order(self, problem: Problem, z: Tensor) -> tuple[Solver, ...]:
        members = self.members
        if members is None:
            members = default_members(
                z.shape[0], z.shape[1], problem.linear, problem.form == "fixed_point"
            )
        first = self.winner.member
        if self.remember and first in members:
            return (first, *(member for member in members if member != first))
        return members


class _Relay:
    """Relay of a batch from member to member; arrays have an entry per system."""

    def __init__(self, problem: Problem, goal: Goal, z: Tensor, residual: Tensor) -> None:
        self._problem, self._goal = problem, goal
        self._ledger = Ledger(z)
        self._start: Tensor = z
        self._reference = goal.reference
        self._first: Tensor | None = residual
        self._held = np.zeros(z.shape[0], dtype=bool) if goal.held is None else goal.held.copy()
        # Without a limit each member has its own default.
        self._budget = goal.budget.within(goal.stopping, problem.counts)
        self._stopped = self._nudged = False
        self._steps_before = self._last_step = 0
        self.solved: list[int] = []
        """Number of systems that each member has solved."""

    @property
    def over(self) -> bool:
        """True once every system is solved or fixed, the budget is spent, or the caller ended the solve."""
        return self._stopped or bool(self._held.all()) or self._budget.spent(0)

    def begin_at_best(self) -> bool:
        """Make the best iterates of unsolved systems their start, but for those far out.

        Far out what is small beside the start tells nothing of a root. True if a system begins again.
        """
        ledger, start = self._ledger, self._start
        first = self._problem.residual(start) if self._first is None else self._first
        size = torch.maximum(rms(start), rms(first_step(self._problem, start, first)))
        near = (rms(ledger.z) <= FAR * size) & (rms(first) > 0)
        lower = torch.from_numpy(ledger.norm).to(start) <= _LOWER * rms(first)
        self._held = self._held | ~(near & lower).cpu().numpy()
        self._start, self._first = ledger.z, None
        if self._reference is not None:
            self._reference = torch.from_numpy(ledger.norm).to(start)
        return not self._held.all()

    def hand_to(self, member: Solver, last: bool, index: int | None = None) -> None:
        """Let a member try the unsolved systems, and keep the iterates that it improves.

        Args:
            member: The member.
            last: It may spend all that is left of the limits.
            index: Its place, if it has had its turn.
        """
        self._steps_before = self._last_step
        goal, ledger = self._goal, self._ledger
        share, self._budget = self._budget.divided(last)
        z, residual = self._next_start()
        result = solve(
            self._problem,
            member,
            z,
            # A system that diverges for a while may return, and the best iterate is kept.
            share.limit(replace(goal.stopping, divergence=math.inf)),
            residual=residual,
            tolerance=goal.tolerance,
            reference=self._reference,
            callback=None if goal.callback is None else Watcher(self._report),
            trace=goal.trace,
            held=self._held if self._held.any() else None,
        )
        open_ = ~self._held
        solved = open_ & (result.status == Status.CONVERGED)
        better = open_ & ((result.residual_norm < ledger.norm) | solved)
        nearest = better | (not self.solved)
        steps = ledger.steps + np.where(open_, result.steps, 0)
        ledger.end(slice(None), np.where(nearest, result.status, ledger.status), steps)
        ledger.keep(better, result.z, result.residual_norm, steps)
        ledger.error = np.where(better, result.error, ledger.error)
        ledger.reasons.update({i: why for i, why in result.reasons.items() if nearest[i]})
        # No member can solve a system from a start that is not finite.
        self._held = self._held | solved | ~np.isfinite(ledger.norm)
        if index is None:
            self.solved.append(int(solved.sum()))
        else:
            self.solved[index] += int(solved.sum())
        gave_up = result.status != Status.MAX_STEPS
        self._leave_edges(open_ & ~self._held & gave_up & (result.best_step == 0))
        if result.trace is not None:
            # The first check of a later member repeats the last one of the member before.
            ledger.trace.extend(result.trace[1 if ledger.trace else 0 :])

    def _leave_edges(self, unmoved: np.ndarray) -> None:
        """Start beside a point at which the Jacobian of a system is not finite, though its value is."""
        if self._nudged or self._problem.linear or not unmoved.any():
            return
        self._nudged = True
        sharp = unmoved & at_edge(self._problem, self._start)
        if not sharp.any():
            return
        for system in np.flatnonzero(sharp):
            self._ledger.reasons[int(system)] = (
                "the Jacobian at the start is not finite, though the residual is; solvers that need it "
                "began beside the start"
            )
        these = torch.from_numpy(sharp).to(self._start.device).unsqueeze(1)
        self._start = torch.where(these, beside(self._start), self._start)
        self._first = None

    def _next_start(self) -> tuple[Tensor, Tensor | None]:
        """Where the next member begins, and the residual there if it is known.

        A linear equation goes on from the best iterate. A nonlinear one begins anew: an iterate at which
        one member stalled (a local minimum, a flat tail) would take every other with it.
        """
        if self._problem.linear:
            return self._ledger.z, None if self.solved else self._first
        fixed = torch.from_numpy(self._held).to(self._start.device).unsqueeze(1)
        if not self._held.any():
            return self._start, self._first
        return torch.where(fixed, self._ledger.z, self._start), None

    def outcome(self) -> RunOutcome:
        return self._ledger.outcome(norms_known=True)

    def _report(self, check: Check) -> bool:
        """The callback with steps and statuses over all members."""
        if check.step == 0 and self.solved:
            return False  # The last check of the member before.
        assert self._goal.callback is not None
        self._last_step = self._steps_before + check.step
        status = np.where(self._held, self._ledger.status, check.status)
        self._stopped = self._goal.callback(replace(check, step=self._last_step, status=status))
        return self._stopped
