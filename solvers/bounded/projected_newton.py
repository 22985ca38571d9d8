"""Newton's method within bounds: projected steps, and interior steps of Coleman and Li where these fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...options.options import check_integer
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import Solver
from ..linear.dense import solve_dense
from ..linear.rows import product
from ..newton.globalisation import settled_systems
from .local import Local, box_of, residual_of, value_of

# Armijo's constant: a step must lower the norm by this part of what its linear model promises.
_SUFFICIENT = 1e-4
# Dampings that an interior step tries, in units of the largest diagonal entry of its matrix.
_DAMPINGS = (1e-12, 1e-8, 1e-5, 1e-3, 1e-1, 1e1, 1e3, 1e6)
# Rounds that fix unknowns which a step would take over a bound that they are at.
_ROUNDS = 3
# An unknown this much nearer to its bound than it was has all but reached it.
_REACHED = 1e-8
# It is put there if no more than this part of the terms of each equation is left.
_SOLVED = 1e-10
# The scaled gradient of the norm is zero below this part of its size, and a bound blocks an unknown whose
# own gradient, without that scaling, is above it.
_STATIONARY, _BLOCKING = 1e-7, 1e-4
# A step that leaves more than this part of the norm leads to no root.
_FALLS = 0.99
# An equation with more than this part of its terms left is not solved.
_LEFT = 1e-2
# Whole steps that are taken without one that lowers the norm, in its own units, to this part of the least.
_WHOLE_STEPS, _BETTER = 40, 0.9
# From a norm below this on, relative to the terms of the equations, every step must lower it.
_NEAR = 1e-3
# Plain steps of a fixed point that are taken where Newton's steps end at no solution.
_PLAIN_STEPS = 20
# After so many steps in a row that a bound has stopped, it blocks the root.
_STOPS = 5


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

    Attributes:
        fraction: The part of the way to its bound that an unknown may go in one step, above 0 and below 1.
        max_trials: Lengths that one step tries.

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
    needs: ClassVar[str] = "dense Jacobians"
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

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> ProjectedState:
        widest = box_of(problem, z).room(z)
        none = torch.zeros_like(z[:, 0])
        whole = 0 if problem.unreduced is not None else _WHOLE_STEPS
        watch = Watch(z, residual, torch.full_like(none, torch.inf), none + whole)
        return ProjectedState(z, residual, none, widest, none, none, watch)

    def step(self, problem: Problem, state: ProjectedState) -> ProjectedState:
        local = Local.of(problem, state.z)
        settled = settled_systems(problem, local.norm)
        search = _Search(problem, local, settled, self.fraction)
        move, watch = _newton_step(local), state.watch.seen(local.norm)
        whole = (watch.left > 0) & ~settled
        solvable = torch.isfinite(move).all(dim=1) | search.accepted
        for trial in range(self.max_trials):
            length = 0.5**trial
            highest = (1 - _SUFFICIENT * length) * local.norm
            highest = torch.where(whole, torch.finfo(highest.dtype).max, highest)
            if not search.attempt(length * move, highest) or search.complete:
                break
        back = whole & ((watch.left == 1) | ~search.accepted | ~solvable)
        search.accepted, solvable = search.accepted | back, solvable | back
        if local.side is None:
            _onto_bounds(local, search, move, state.widest)
        if not search.complete:
            _interior_steps(local, search)
        stopped = torch.where(_stopped(local, search, move, state.widest), state.stopped + 1, 0)
        stopped = torch.where(whole, 0, stopped)
        blocked = _blocked(local, search) | (stopped >= _STOPS) | (~search.moved & (stopped > 0))
        blocked = blocked & ~whole
        ends = ~settled & (~search.accepted | blocked | ~solvable)
        plain = ends & (state.plain < _PLAIN_STEPS) & (problem.form == "fixed_point")
        if bool(plain.any()):
            search.go(_plain_step(problem, search, local, plain), plain, torch.inf)
            stopped = torch.where(plain, 0, stopped)
        blocked, solvable = blocked & ~plain, solvable | plain
        end = torch.where(search.accepted, 0, int(Status.STALLED))
        end = torch.where(blocked, int(Status.BLOCKED), end)
        end = torch.where(solvable, end, int(Status.LINEAR_SOLVE_FAILED))
        residual = residual_of(problem, search.z, search.value)
        moved, again = search.moved.unsqueeze(1), back.unsqueeze(1)
        residual = torch.where(moved, residual, state.residual)
        residual = torch.where(again, watch.residual, residual)
        z = torch.where(again, watch.z, search.z)
        watch.left = torch.where(back, 0.0, (watch.left - 1).clamp(min=0.0))
        widest = torch.maximum(state.widest, local.box.room(z))
        return ProjectedState(
            z, residual, end.to(residual.dtype), widest, stopped.to(residual.dtype),
            state.plain + plain, watch,
        )  # fmt: skip


@dataclass
class _Search:
    """Trial points of one step.

    Attributes:
        problem: The systems.
        local: Their equations near the iterate.
        accepted: Systems that need no further trial.
        fraction: See `ProjectedNewton`.
        z: The points reached.
        value: `F` there, where systems have moved.
        moved: The systems that have moved.
        norm: The norms reached.
    """

    problem: Problem
    local: Local
    accepted: Tensor
    fraction: float
    z: Tensor = field(init=False)
    value: Tensor = field(init=False)
    moved: Tensor = field(init=False)
    norm: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.z, self.value = self.local.z, torch.zeros_like(self.local.z)
        self.moved, self.norm = torch.zeros_like(self.accepted), self.local.norm

    @property
    def complete(self) -> bool:
        return bool(self.accepted.all())

    def attempt(self, y: Tensor, highest: Any) -> bool:
        """Try a scaled step; it is accepted where it moves, to a norm of at most `highest`.

        False where it moves no system, so that no shorter one would.
        """
        usable = torch.isfinite(y).all(dim=1) & ~self.accepted
        trial = self.local.towards(torch.where(usable.unsqueeze(1), y, 0.0), self.fraction)
        moves = usable & (trial != self.local.z).any(dim=1)
        if not bool(moves.any()):
            return False
        self.go(trial, moves, highest)
        return True

    def go(self, trial: Tensor, usable: Tensor, highest: Any) -> None:
        """Go to a point where the norm there is at most `highest`, for the systems `usable`."""
        trial = torch.where(usable.unsqueeze(1), trial, self.z)
        value = value_of(self.problem, trial)
        norm = self.local.norm_at(trial, value)
        good = usable & (norm <= highest)
        column = good.unsqueeze(1)
        self.z = torch.where(column, trial, self.z)
        self.value = torch.where(column, value, self.value)
        self.norm = torch.where(good, norm, self.norm)
        self.accepted, self.moved = self.accepted | good, self.moved | good


def _plain_step(problem: Problem, search: _Search, local: Local, which: Tensor) -> Tensor:
    """The points that one plain step `z ← P(f(z))` leads to, for the systems `which`."""
    residual = -value_of(problem, search.z)
    move = torch.where(which.unsqueeze(1) & torch.isfinite(residual), residual, 0.0)
    return local.box.onto(search.z + move)


def _newton_step(local: Local) -> Tensor:
    """The scaled step; unknowns at a bound that it would leave through stay."""
    # In twice the digits where there are more: rows and columns have many scales.
    matrix, value = local.matrix.double(), local.value.double()
    y = solve_dense(matrix, -value)
    if local.side is not None:
        return y.to(local.value.dtype)
    stays = torch.zeros_like(y, dtype=torch.bool)
    for _ in range(_ROUNDS):
        out = (local.z <= local.box.lower) & (y < 0) | (local.z >= local.box.upper) & (y > 0)
        if not bool((out & ~stays).any()):
            break
        stays = stays | out
        some = stays.any(dim=1, keepdim=True)
        y = torch.where(some, solve_dense(torch.where(stays.unsqueeze(1), 0.0, matrix), -value), y)
        y = torch.where(stays, 0.0, y)
    return y.to(local.value.dtype)


def _near_bounds(local: Local, z: Tensor, widest: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
    """The unknowns that have all but reached the lower, and the upper bound that a step leads out of."""
    box, whole = local.box, local.z + local.scale * move
    below, above = z - box.lower, box.upper - z
    nearly = _REACHED * torch.where(torch.isfinite(widest), widest, 1.0)
    # Newton's step from one that is nearly there must lead to the bound, but for the last percent.
    down = (below <= nearly) & (whole <= box.lower + below)
    up = (above <= nearly) & (whole >= box.upper - above)
    return down, up


def _stopped(local: Local, search: _Search, move: Tensor, widest: Tensor) -> Tensor:
    """The systems whose worst equation hardly improves, and with an unknown that would cross its bound."""
    if local.side is not None:
        return torch.zeros_like(search.accepted)
    down, up = _near_bounds(local, search.z, widest, move)
    before = local.value.abs().amax(dim=1)
    after = (local.weights * search.value).abs().amax(dim=1)
    after = torch.where(search.moved, after, before)
    unsolved = after > torch.clamp(_FALLS * before, min=_LEFT)
    return (down | up).any(dim=1) & unsolved


def _onto_bounds(local: Local, search: _Search, move: Tensor, widest: Tensor) -> None:
    """Put unknowns on a bound that they have all but reached, where that solves the equation."""
    box = local.box
    down, up = _near_bounds(local, search.z, widest, move)
    there = torch.where(down, box.lower, torch.where(up, box.upper, search.z))
    some = (there != search.z).any(dim=1) & search.moved
    if bool(some.any()):
        search.go(there, some, torch.clamp(search.norm, max=_SOLVED))


def _interior_steps(local: Local, search: _Search) -> None:
    """Try damped Gauss–Newton steps in the variables of Coleman and Li."""
    gradient = product(local.matrix.mT, local.value)
    room = _room_ahead(local, gradient)
    root = room.sqrt()
    # The derivative of the scaling, where a bound is ahead.
    bent = torch.where(torch.isfinite(_ahead(local, gradient)), gradient.abs(), 0.0)
    scaled = local.matrix * root.unsqueeze(1)
    matrix = scaled.mT @ scaled + torch.diag_embed(bent)
    usable = torch.isfinite(matrix).all(dim=(1, 2), keepdim=True)
    matrix = torch.where(usable, matrix, 0.0)
    largest = torch.diagonal(matrix, dim1=1, dim2=2).amax(dim=1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    for damping in _DAMPINGS:
        damped = matrix + torch.diag_embed((damping * largest).expand_as(root))
        y = root * solve_dense(damped, -root * gradient)
        slope = (gradient * y).sum(dim=1)
        square = local.norm**2 + 2 * _SUFFICIENT * slope
        highest = square.clamp(min=0.0).sqrt()
        search.attempt(torch.where((slope < 0).unsqueeze(1), y, 0.0), highest)
        if search.complete:
            return


def _ahead(local: Local, gradient: Tensor) -> Tensor:
    """The distance to the bound that a step along minus the gradient meets, in units of the unknown."""
    below, above = local.z - local.box.lower, local.box.upper - local.z
    ahead = torch.where(gradient > 0, below, above)
    return ahead / local.scale if local.side is None else torch.full_like(ahead, torch.inf)


def _room_ahead(local: Local, gradient: Tensor) -> Tensor:
    """The same, and one where no bound is ahead."""
    ahead = _ahead(local, gradient)
    return torch.where(torch.isfinite(ahead), ahead, 1.0)


def _blocked(local: Local, search: _Search) -> Tensor:
    """The systems with a bound that keeps the norm from falling, at a minimum that is no root."""
    if local.side is not None:
        return torch.zeros_like(search.accepted)
    norm = local.norm.unsqueeze(1)
    gradient = product(local.matrix.mT, local.value)
    room = _room_ahead(local, gradient)
    # Unknowns are scaled by their distance to a bound: the columns say how much they matter.
    columns = torch.linalg.vector_norm(local.matrix, dim=1)
    steep = gradient.abs() > _BLOCKING * columns * norm
    flat = (room * gradient).abs() <= _STATIONARY * norm
    at_bound = steep & torch.isfinite(_ahead(local, gradient))
    stays = search.norm > _FALLS * local.norm
    return stays & flat.all(dim=1) & at_bound.any(dim=1) & (local.norm > 0)
