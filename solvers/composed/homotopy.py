"""Homotopy continuation: follow the solutions of an easy equation to those of the given one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...options.options import is_positive, one_of
from ..driving.driver import solve
from ..driving.ledger import Ledger
from ..driving.rounding import level
from ..interface.goal import Goal
from ..interface.norms import rms
from ..interface.problem import Problem
from ..interface.scale import first_length
from ..interface.solution import Status
from ..interface.solver import RunOutcome, Solver, WholeSolver
from ..interface.stopping import Stopping
from ..newton.newton import Newton
from .augmented import KINDS, Kind, Path, augmented

# Tolerance of the points on the path, relative to the first residual, and its lower limit in roundings.
_NEARNESS, _NEARNESS_UNITS = 1e-4, 8
# The corrector's limit on steps; it is quick if it takes no more than the second number.
_CORRECTOR_STEPS = 6
_FEW_CORRECTOR_STEPS = 3
# A step is rejected where the cosine of its angle to the one before is below this.
_SHARPEST_TURN = 0.7
_GROWTH, _CUT = 2.0, 0.5
# A system stalls once its step is below this fraction of the first.
_SHORTEST = 1e-9
# A path may touch μ = 0 without crossing it: the end is tried at this μ, and again each time μ is smaller
# by this factor.
_NEAR, _NEARER = 0.01, 0.1
# The end is also tried where μ turns back from below this.
_NEAR_TURN = 0.5
# A path diverges where |μ| exceeds this.
_FARTHEST = 1e3
# The corrector's limit on steps at the end of the path.
_LAST_STEPS = 50


@dataclass(frozen=True)
class Homotopy(WholeSolver):
    """Follow the path of `H(z, μ) = 0` from `z₀` at `μ = 1` to a solution at `μ = 0`.

    The Newton homotopy `H = r(z) − μ r(z₀)` shrinks the residual without changing its direction. Its path
    is that of Newton steps of infinitesimal length, and goes on at singular Jacobians, where Newton's
    method must end: the path is followed by its length, not by `μ`. So it passes folds, where `μ` turns
    back (and may rise above one for a while). The fixed-point homotopy `H = (1 − μ) r(z) + μ (z₀ − z) / t`
    starts from an equation with one solution.

    The predictor goes along the secant of the last two points. From there the corrector solves for the
    point of the path in the plane normal to the secant, in up to six steps. The step is halved where the
    corrector fails or the path turns sharply, and doubled where the corrector is quick. The corrector
    solves the given equation, to its tolerance, where `μ` changes its sign, and also where `μ` has become
    small: a path to a singular solution may not cross `μ = 0`. Each system has its own step length.

    It is a last resort: every step is a solve of its own. A path may also lead to infinity
    (`DIVERGED`) or close on itself.

    Attributes:
        corrector: Solver of the points of the path and of the end; Newton-like, without
            globalisation. Give `NewtonKrylov(globalisation=None)` for many unknowns.
        kind: `"newton"` or `"fixed_point"`.
        first_step: The first step, as a fraction of the distance in `μ`.

    Raises:
        TypeError: `corrector` is not a solver.
        ValueError: An option is out of range.

    Source: Keller 1977 (pseudo-arclength); Branin 1972, Smale 1976 (Newton homotopy); Chow,
    Mallet-Paret & Yorke 1978 (fixed-point homotopy); Allgower & Georg 1990, chapters 2, 6 and 7.

    Examples:
        >>> import torch, implicitly
        >>> F = lambda z: torch.atan(z)
        >>> start = torch.tensor(20.0, dtype=torch.float64)  # Newton's method diverges from here
        >>> solution = implicitly.root(F, start, solver=implicitly.Homotopy())
        >>> bool(solution.value.abs() < 1e-8)
        True
    """

    corrector: Solver = field(default_factory=lambda: Newton(globalisation=None))
    kind: Kind = "newton"
    first_step: float = 0.1
    needs: ClassVar[str] = "what its corrector needs"
    suits: ClassVar[str] = "where nothing else leads: past singular Jacobians and folds"

    default_max_steps: ClassVar[int] = 60

    def __post_init__(self) -> None:
        if not isinstance(self.corrector, Solver):
            raise TypeError(f"corrector must be a solver such as Newton(), got {self.corrector!r}")
        one_of("kind", self.kind, KINDS)
        if not (is_positive(self.first_step) and self.first_step <= 1):
            raise ValueError(f"first_step must be in (0, 1], got {self.first_step!r}")

    @property
    def keeps_batch(self) -> bool:
        return self.corrector.keeps_batch

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        walk = _Walk(self, problem, z, residual, goal)
        ledger = walk.ledger
        while not ledger.all_ended and not goal.budget.spent(walk.count):
            walk.step()
            if ledger.watched:
                norms = rms(problem.residual(ledger.z)).cpu().numpy()
                ledger.norms = np.where(ledger.running, norms, np.nan)
                ledger.record()
                if ledger.announce(walk.count):
                    break
        ledger.end(ledger.running, Status.MAX_STEPS, walk.count)
        return ledger.outcome()


class _Walk:
    """Path following for a batch: current points, directions, step lengths and the ledger.

    Points are rows `w = (y, μ)`; arrays on the host have an entry per system.
    """

    def __init__(
        self, options: Homotopy, problem: Problem, z: Tensor, residual: Tensor, goal: Goal
    ) -> None:
        self._corrector = options.corrector
        self._problem, self._goal = problem, goal
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
        size = torch.where(size > 0, size, 1.0)
        length = first_length(problem, z, residual)
        self._path = Path(options.kind, z, residual, size, length, length.abs() * size)
        self._w = torch.cat((torch.zeros_like(z), torch.ones_like(size)), dim=1)
        # The first direction is along μ: the tangent of the path is not yet known.
        self._direction = torch.cat((torch.zeros_like(z), -torch.ones_like(size)), dim=1)
        self._length = torch.full_like(size, options.first_step)
        self._shortest = _SHORTEST * options.first_step
        self._near = torch.full_like(size, _NEAR)
        """The `μ` below which the end is tried next."""
        self._nearness = max(_NEARNESS, _NEARNESS_UNITS * problem.eps(z))
        self._rounding = level(problem, z) * rms(residual).cpu().numpy().astype(np.float64)
        self.count = 0
        self.ledger = Ledger(z, callback=goal.callback, trace=goal.trace)
        if goal.held is not None:
            self.ledger.end(goal.held, Status.MAX_STEPS, 0)
        self.ledger.end(goal.met(z, residual).cpu().numpy(), Status.CONVERGED, 0)
        self._set_out = np.zeros(z.shape[0], dtype=bool)
        """The systems that have taken a first step."""

    def step(self) -> None:
        """Predict and correct once for every system, and solve for the end where a path reaches it."""
        target = self._w + self._length * self._direction
        equation = augmented(self._problem, self._path, self._direction, target)
        nearness = Stopping(rtol=0.0, atol=self._nearness)
        # The augmented equation has its own counts, which start from zero.
        left = self._goal.budget.remaining()
        limits = replace(left, steps=_CORRECTOR_STEPS).limit(nearness)
        running = self.ledger.running
        result = solve(equation, self._corrector, target, limits, held=~running)
        self.count += 1

        move = result.z - self._w
        distance = torch.linalg.vector_norm(move, dim=1, keepdim=True)
        turn = (move * self._direction).sum(dim=1, keepdim=True) / distance
        straight = torch.where(self._column(self._set_out), turn >= _SHARPEST_TURN, distance > 0)
        mu, before = result.z[:, -1:], self._w[:, -1:]
        turned_back = (mu > before) & (before <= _NEAR_TURN) & (self._direction[:, -1:] < 0)
        near = (mu <= self._near) | turned_back
        facts = torch.cat((straight, mu <= 0, near, mu.abs() > _FARTHEST), dim=1)
        is_straight, crosses, is_near, is_far = facts.cpu().numpy().T
        new = running & (result.status == Status.CONVERGED) & is_straight
        crossed, near = new & crosses, new & is_near & ~crosses
        if (crossed | near).any():
            self._near = torch.where(self._column(near), _NEARER * mu, self._near)
            self._arrive(result.z, crossed, crossed | near)
            # A system that crossed μ = 0 and was not solved tries a shorter step.
            new &= ~crossed
        self._advance(self._column(new), result.z, move)
        quick = self._column(result.steps <= _FEW_CORRECTOR_STEPS)
        growth = torch.where(quick, _GROWTH, 1.0)
        self._length = self._length * torch.where(self._column(new), growth, _CUT)
        lost = (self._length < self._shortest).squeeze(1).cpu().numpy()
        running = self.ledger.running
        self._end(running & lost, Status.STALLED)
        self._end(running & new & is_far & ~lost, Status.DIVERGED)

    def _advance(self, accepted: Tensor, w: Tensor, move: Tensor) -> None:
        """Move to `w` where accepted; the first step sets the unit of `y` to the distance that `z` moved."""
        first = accepted & ~self._column(self._set_out)
        part = torch.linalg.vector_norm(move[:, :-1], dim=1, keepdim=True) / self._length
        scale = torch.where(first & (part > 0), part, 1.0)
        self._path = replace(self._path, unit=self._path.unit * scale)
        rescale = torch.cat((scale.reciprocal().expand_as(w[:, :-1]), torch.ones_like(scale)), 1)
        move, w, here = move * rescale, w * rescale, self._w * rescale
        distance = torch.linalg.vector_norm(move, dim=1, keepdim=True)
        self._w = torch.where(accepted, w, here)
        self._direction = torch.where(accepted, move / distance, self._direction)
        going = accepted & self._column(self.ledger.running)
        self.ledger.z = torch.where(going, self._path.position(self._w), self.ledger.z)
        self._set_out |= accepted.squeeze(1).cpu().numpy()

    def _arrive(self, w: Tensor, crossed: np.ndarray, there: np.ndarray) -> None:
        """Solve the given equation: from the crossing of `μ = 0` where there is one, else from `w`."""
        before, after = self._w[:, -1:], w[:, -1:]
        across = self._column(crossed)
        part = torch.where(across, before / torch.where(across, before - after, 1.0), 1.0)
        goal = self._goal
        result = solve(
            self._problem,
            self._corrector,
            self._path.position(torch.lerp(self._w, w, part)),
            replace(goal.stopping, max_steps=_LAST_STEPS),
            tolerance=goal.tolerance,
            reference=goal.reference,
            held=~there,
        )
        self._problem.unpark()  # Path following evaluates every system at its own iterate.
        solved = there & (result.status == Status.CONVERGED)
        at_rounding = there & ~solved & (result.residual_norm <= self._rounding)
        arrived = self._column(solved | at_rounding)
        self.ledger.z = torch.where(arrived, result.z, self.ledger.z)
        self._end(solved, Status.CONVERGED)
        self._end(at_rounding, Status.STALLED)

    def _end(self, which: np.ndarray, status: Status) -> None:
        self.ledger.end(which, status, self.count)

    def _column(self, entries: np.ndarray) -> Tensor:
        return torch.from_numpy(entries).to(self._w.device).unsqueeze(1)
