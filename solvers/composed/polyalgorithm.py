"""Several solvers in turn: each takes over the systems that those before it have left unsolved."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..driving.driver import solve
from ..interface.goal import Goal
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import Outcome, Solver, WholeSolver
from ..interface.stopping import Stopping
from .members import default_members


@dataclass
class Winner:
    """What a `Polyalgorithm` remembers between calls.

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
        """Forget it: the next call starts with the first member again."""
        self.member = None


@dataclass(frozen=True)
class Polyalgorithm(WholeSolver):
    """Try several solvers in turn until every system is solved: the default of `root`.

    Each member goes on from the best iterate of every system that is not solved yet, with the tolerance
    of the whole solve; what is solved is held where it is and costs nothing more. An equation that
    the first member solves costs what that member costs. Members may run away and come back: only
    NaN, their own verdict or a limit ends them, and the best iterate is kept in any case.

    Of a limit on steps or evaluations every member but the last may use half of what is left when its
    turn comes, so that none uses it all; without a limit each has its own.

    The member that solved most systems is remembered, and the next call of the same solver object
    (a warm start, the next batch of a layer) begins with it. So that answers do not depend on
    what was solved before, `remember=False` forgets, and `winner.reset()` starts afresh. Copies by
    `dataclasses.replace` share `winner`; `copy.deepcopy` and pickle copy it. Threads may share a
    solver: the last call to end is the one that is remembered.

    Attributes:
        members: Solvers, in order; `None` to choose by size (`default_members`).
        remember: Whether to begin with the winner of the last call.
        winner: What is remembered.

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

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> Outcome:
        members = self._order(problem, z)
        relay = _Relay(problem, goal, z, residual)
        for position, member in enumerate(members):
            relay.hand_to(member, last=position == len(members) - 1)
            if relay.over:
                break
        if self.remember and max(relay.solved) > 0:
            self.winner.member = members[int(np.argmax(relay.solved))]
        return relay.outcome()

    def _order(self, problem: Problem, z: Tensor) -> tuple[Solver, ...]:
        members = self.members
        if members is None:
            members = default_members(z.shape[0], z.shape[1], problem.linear)
        first = self.winner.member
        if self.remember and first in members:
            return (first, *(member for member in members if member != first))
        return members


class _Relay:
    """The systems on their way from member to member; arrays have an entry per system."""

    def __init__(self, problem: Problem, goal: Goal, z: Tensor, residual: Tensor) -> None:
        batch = z.shape[0]
        self._problem, self._goal = problem, goal
        self._z = z
        self._residual: Tensor | None = residual
        """The residual at `z`, while that is the start."""
        self._held = np.zeros(batch, dtype=bool) if goal.held is None else goal.held.copy()
        self._norm = np.full(batch, np.inf)
        self._status = np.full(batch, Status.MAX_STEPS, dtype=np.int8)
        self._steps = np.zeros(batch, dtype=np.int64)
        self._trace: list[np.ndarray] = []
        self._stopped = False
        self._steps_left = goal.stopping.max_steps
        self._steps_before = self._last_step = 0
        self.solved: list[int] = []
        """How many systems each member has solved."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, or nothing to do it with."""
        return self._stopped or bool(self._held.all()) or self._spent()

    def hand_to(self, member: Solver, last: bool) -> None:
        """Let `member` try what is left, and keep what it improves."""
        self._steps_before = self._last_step
        result = solve(
            self._problem,
            member,
            self._z,
            self._limits(last),
            residual=self._residual,
            rtol=None if self._goal.stopping.rtol is None else self._goal.rtol,
            reference=self._goal.reference,
            callback=None if self._goal.callback is None else self._report,
            trace=self._goal.trace,
            held=self._held if self._held.any() else None,
        )
        self._residual = None
        first = not self.solved
        open_ = ~self._held
        solved = open_ & (result.status == Status.CONVERGED)
        better = open_ & ((result.residual < self._norm) | solved)
        if better.all():
            self._z = result.z
        elif better.any():
            index = torch.from_numpy(np.flatnonzero(better)).to(self._z.device)
            self._z = self._z.index_copy(0, index, result.z.index_select(0, index))
        self._norm = np.where(better, result.residual, self._norm)
        self._status = np.where(better | first, result.status, self._status)
        self._steps = self._steps + np.where(open_, result.steps, 0)
        # From a start that is not finite nothing leads anywhere.
        self._held = self._held | solved | ~np.isfinite(self._norm)
        self.solved.append(int(solved.sum()))
        if result.trace is not None:
            # The first look of a later member is where the one before it has ended.
            self._trace.extend(result.trace[1 if self._trace else 0 :])

    def outcome(self) -> Outcome:
        trace = np.stack(self._trace) if self._trace else None
        return Outcome(self._z, self._status, self._steps, residual=self._norm, trace=trace)

    def _limits(self, last: bool) -> Stopping:
        """The stopping rule of the next member: the given one with its share of the limits."""
        stopping = self._goal.stopping
        # What has run away may come back, and the best iterate is kept.
        stopping = replace(stopping, divergence=math.inf)
        if self._steps_left is not None:
            share = self._steps_left if last else math.ceil(self._steps_left / 2)
            # Not what was used: a system's share does not depend on how others fared.
            self._steps_left -= share
            stopping = replace(stopping, max_steps=share)
        if stopping.max_evaluations is not None:
            used = self._problem.counts.evaluations
            left = max(stopping.max_evaluations - used, 0)
            share = left if last else math.ceil(left / 2)
            stopping = replace(stopping, max_evaluations=used + share)
        return stopping

    def _spent(self) -> bool:
        limit = self._goal.max_evaluations
        evaluations = self._problem.counts.evaluations
        return self._steps_left == 0 or (limit is not None and evaluations >= limit)

    def _report(self, step: int, norms: np.ndarray) -> bool:
        """The callback with steps counted over all members."""
        if step == 0 and self.solved:
            return False  # Where the member before has ended.
        assert self._goal.callback is not None
        self._last_step = self._steps_before + step
        self._stopped = bool(self._goal.callback(self._last_step, norms))
        return self._stopped
