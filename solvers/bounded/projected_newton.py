"""Newton's method within bounds: projected steps, and interior steps of Coleman and Li where these fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ...options.options import check_integer
from ..interface.problem import Problem
from ..interface.solver import Solver, Transpose
from ..linear.sparse_lu import KnownPattern, SparseLU
from ..newton.globalisation import settled_systems
from .blocking import Ends, reached
from .local import Local, box_of, residual_of
from .search import AWAY, THERE, Search, interior_steps, onto_bounds, plain_step

# Rounds that fix unknowns which a step would take over a bound that they are at.
_ROUNDS = 3
# An unknown is put on its bound if no more than this part of the terms of each equation is left.
_SOLVED = 1e-10
# A norm that rises by no more than this part has not changed.
_HARDLY = 1e-6
# Whole steps that are taken without one that lowers the norm, in its own units, to this part of the least.
_WHOLE_STEPS, _BETTER = 40, 0.9
# From a norm below this on, relative to the terms of the equations, every step must lower it.
_NEAR = 1e-3
# Plain steps of a fixed point that are taken where Newton's steps end at no solution.
_PLAIN_STEPS = 20


@dataclass
class Watch:
    """The start, which whole steps go back to where they lead nowhere.

    Attributes:
        z: The start, `(batch, n)`.
        residual: The residual there.
        norm: The least norm that an iterate had in its own units, `(batch,)`.
        left: Whole steps that may still be taken; 0 where every step must lower the norm.
    """

    z: Tensor
    residual: Tensor
    norm: Tensor
    left: Tensor

    def seen(self, norm: Tensor) -> Watch:
        """After a look at an iterate whose norm is given."""
        better = (self.left > 0) & (norm < _BETTER * self.norm)
        left = torch.where(better, float(_WHOLE_STEPS), self.left)
        norm, left = torch.where(better, norm, self.norm), torch.where(norm < _NEAR, 0.0, left)
        return Watch(self.z, self.residual, norm, left)


@dataclass
class ProjectedState:
    """Iterate, residual, and the systems that can do no more.

    Attributes:
        z: The iterate, `(batch, n)`.
        residual: The residual there.
        end_status: `Status` codes of systems that can do no more.
        widest: The largest distance of each unknown to its nearer bound so far.
        stopped: Steps in a row that a bound has stopped.
        plain: Plain steps of a fixed point that have been taken where Newton's led no further.
        watch: The start, and whole steps that may follow before the solve goes back there.
    """

    z: Tensor
    residual: Tensor
    end_status: Tensor
    widest: Tensor
    stopped: Tensor
    plain: Tensor
    watch: Watch


@dataclass(frozen=True)
class ProjectedNewton(Solver):
    """Newton's method for `F(z) = 0` with `l ≤ z ≤ u`: no iterate and no trial point lies outside.

    The step `p` of Newton's method is followed along the path `P(z + λ p)`, on which each unknown goes at
    most the part `fraction` of the way to its bound, by itself: an unknown that runs into a bound does not
    shorten the step of the others, and logarithms stay finite. An unknown at a bound that `p` would take
    out stays there, and the equations of the others are solved.

    At first the whole step is taken, `λ = 1`, wherever it leads to finite values, since the way to a root
    many orders of magnitude off leads over larger residuals. If the norm has found no new least value, in
    units of the terms of each equation, for 40 steps, the solve goes back to its start. From then on, and
    near a root, `λ` is halved until the norm falls, by Armijo's rule.

    Where no `λ` is accepted, the step is a damped Gauss–Newton step in the variables of Coleman and Li,
    which are scaled by the room that the gradient of the norm leaves to a bound. A system at which that
    scaled gradient vanishes, while the gradient itself does not, has the status `BLOCKED`: the norm is at a
    minimum on a bound, which is no root.

    Where all of that ends at a point which is no fixed point, `fixed_point` goes on by a plain step
    `z ← P(f(z))`, up to 20 times.

    Of complementarity problems (`complementarity`) steps are those of a semismooth Newton method, and
    unknowns go all of the way to their bounds.

    Jacobians are dense up to 2048 unknowns. Larger ones, and all of a given pattern, are sparse, found from
    products and factored as by `SparseLU`.

    Attributes:
        fraction: The part of the way to its bound that an unknown may go in one step, above 0 and below 1.
        max_trials: Lengths that one step tries.
        known: The pattern of the last sparse Jacobian, which is tried first. Copies by `dataclasses.replace`
            share it.

    Raises:
        ValueError: `fraction` or `max_trials` is out of range.

    Source: Bertsekas 1982 (projected Newton paths); Bellavia, Macconi & Morini 2003 (strictly feasible
    iterates, a fraction of the way to the bounds); Coleman & Li 1996 (the interior scaling); Kanzow,
    Yamashita & Fukushima 2004 (Newton's step first, a safeguarded one where it fails); Chamberlain, Powell,
    Lemaréchal & Pedersen 1982 (the watchdog, by which relaxed steps go back); Hintermüller, Ito & Kunisch
    2003 (complementarity).

    Examples:
        >>> import torch, implicitly
        >>> F = lambda z: torch.log(z) + z - 1e-6  # No logarithm is taken of a negative number.
        >>> start = torch.tensor(50.0, dtype=torch.float64)
        >>> solution = implicitly.root(F, start, bounds=(0.0, torch.inf))
        >>> round(solution.value.item(), 4)
        0.5671
    """

    fraction: float = 0.99
    max_trials: int = 30
    known: KnownPattern = field(default_factory=KnownPattern, compare=False, repr=False)
    needs: ClassVar[str] = "Jacobians, dense or sparse"
    suits: ClassVar[str] = "equations with bounds: the default there"
    keeps_bounds: ClassVar[bool] = True
    # The norm falls in the units of each step, not in those of the equations: the last iterate is the best.
    lazy_iterate: ClassVar[bool] = True
    ends_itself: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("max_trials", self.max_trials, 1)
        fraction = self.fraction
        if not isinstance(fraction, float) or not 0 < fraction < 1:
            raise ValueError(f"fraction must be a number between 0 and 1, got {fraction!r}")

    def for_derivative(self, transpose: Transpose | None) -> Solver | None:
        if self.known.pattern is None:
            return None
        return SparseLU(known=self.known).for_derivative(transpose)

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> ProjectedState:
        widest = box_of(problem, z).room(z)
        none = torch.zeros_like(z[:, 0])
        whole = 0 if problem.unreduced is not None else _WHOLE_STEPS
        watch = Watch(z, residual, torch.full_like(none, torch.inf), none + whole)
        return ProjectedState(z, residual, none, widest, none, none, watch)

    def step(self, problem: Problem, state: ProjectedState) -> ProjectedState:
        local = Local.of(problem, state.z, self.known)
        settled = settled_systems(problem, local.norm)
        search = Search(problem, local, settled, self.fraction)
        move, watch = _newton_step(local), state.watch.seen(local.norm)
        whole = (watch.left > 0) & ~settled
        solvable = torch.isfinite(move).all(dim=1) | settled
        search.shorten(move, whole, self.max_trials)
        back = whole & ((watch.left == 1) | ~search.accepted | ~solvable)
        search.accepted, solvable = search.accepted | back, solvable | back
        if local.side is None:
            highest = search.norm.clamp(max=_SOLVED)
            anywhere = torch.full_like(search.z, torch.inf)
            onto_bounds(local, search, move, anywhere, THERE, search.moved, highest)
        if not search.complete:
            interior_steps(local, search)
        ends = Ends.of(
            local, search, move, state.widest, state.stopped,
            watched=whole | settled, solvable=solvable,
        )  # fmt: skip
        plain = ends.any & (state.plain < _PLAIN_STEPS) & (problem.form == "fixed_point")
        if bool(plain.any()):
            search.go(plain_step(problem, search, local, plain), plain, torch.inf)
            ends = ends.but(plain)
        if bool(ends.blocked.any()):
            highest = (1 + _HARDLY) * search.norm
            near = reached(state.widest)
            onto_bounds(local, search, move, near, AWAY, ends.blocked, highest)
        residual = residual_of(problem, search.z, search.value)
        residual = torch.where(search.moved.unsqueeze(1), residual, state.residual)
        again = back.unsqueeze(1)
        z = torch.where(again, watch.z, search.z)
        watch.left = torch.where(back, 0.0, (watch.left - 1).clamp(min=0.0))
        return ProjectedState(
            z,
            torch.where(again, watch.residual, residual),
            ends.status.to(residual.dtype),
            torch.maximum(state.widest, local.box.room(z)),
            ends.stopped.to(residual.dtype),
            state.plain + plain,
            watch,
        )


def _newton_step(local: Local) -> Tensor:
    """The scaled step; unknowns at a bound that it would leave through stay."""
    value = local.value
    y = local.matrix.solve(-value)
    if local.side is not None:
        return y.to(value.dtype)
    stays = torch.zeros_like(y, dtype=torch.bool)
    for _ in range(_ROUNDS):
        out = (local.z <= local.box.lower) & (y < 0) | (local.z >= local.box.upper) & (y > 0)
        if not bool((out & ~stays).any()):
            break
        stays = stays | out
        some = stays.any(dim=1, keepdim=True)
        y = torch.where(some, local.matrix.solve_without(stays, -value), y)
    return y.to(value.dtype)
