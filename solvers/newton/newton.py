"""Newton's method with dense Jacobians, formed in every step, every few steps, or once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...options.options import check_optional_integer
from ..interface.golden import golden_signs
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import Solver
from ..linear.dense import DenseFactors, powers_of_two
from ..linear.rows import product
from .globalisation import (
    DESCENT_PATIENCE,
    FullSteps,
    Globalisation,
    Model,
    Point,
    PointState,
    check_globalisation,
    settled_systems,
    units,
)
from .trust_region import TrustRegion

# A step of old factors that is this much shorter than the last move is Newton's but for a fifth.
_CONTRACTION = 0.1
# A step that leaves more than this part of an equation does not solve it.
_REPRODUCED = 0.1
# A move of at most this part of every unknown leaves the Jacobian much as it was.
_SHORT_MOVE = 0.1
# Refactor once a step with reused factors leaves more than this fraction of the residual.
_ENOUGH = 0.5


@dataclass(frozen=True)
class KeptFactors:
    """Factors of earlier Jacobians, for reuse.

    Attributes:
        factors: Factors of the Jacobians with their rows multiplied by `scales`.
        scales: Row scales, `(batch, n)`.
        age: Steps that they have served, `(batch,)`; infinite where they must not serve again.
    """

    factors: DenseFactors
    scales: Tensor
    age: Tensor

    def solve(self, residual: Tensor) -> Tensor:
        """`J⁻¹ r`."""
        return self.factors.solve(self.scales * residual)

    def solve_transposed(self, r: Tensor) -> Tensor:
        """`J⁻ᵀ r`."""
        return self.scales * self.factors.solve(r, transpose=True)

    def error(self, z: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """How far `z` is from a solution by these factors, `(batch, n)`, and the systems that they can tell.

        The step `J⁻¹ r`, and what rounding of each equation to the size of its terms can cause, with
        quasi-random signs (the componentwise condition, Skeel 1979). A step that does not solve its
        equation row by row, as that of a singular matrix, tells nothing.
        """
        matrices, right = self.factors.matrices, self.scales * residual
        eps = torch.finfo(z.dtype).eps
        terms = product(matrices.abs(), z.abs())
        step = self.factors.solve(right)
        off = (product(matrices, step) - right).abs()
        solves = (off <= _REPRODUCED * right.abs() + eps * terms).all(dim=1)
        rounding = self.factors.solve(eps * golden_signs(z, first=1) * terms)
        return torch.maximum(step.abs(), rounding.abs()), solves

    def or_else(self, mask: Tensor, other: KeptFactors) -> KeptFactors:
        """The factors of `other` where `mask`, `(batch,)`, is true, and these elsewhere."""
        return KeptFactors(
            self.factors.or_else(mask, other.factors),
            torch.where(mask.unsqueeze(1), other.scales, self.scales),
            torch.where(mask, other.age, self.age),
        )


@dataclass
class NewtonState(PointState):
    """Iterate, the globalisation's own state, and the systems that can do no more."""

    memory: Any
    end_status: Tensor
    kept: KeptFactors | None = None
    weights: Tensor | None = None
    """Factors that bring the equations of a residual to one unit, `(batch, n)`."""
    move: Tensor | None = None
    """The last change of the iterate, `(batch, n)`."""

    def error(self) -> Tensor | None:
        """The relative error of the iterate by the last factors, `(batch,)`; NaN where they say little.

        Their step at the new iterate is Newton's up to the change of the Jacobian along the last move, so
        that it must be ten times shorter than that, and that short beside every unknown.
        """
        if self.kept is None or self.move is None:
            return None
        size = self.z.abs()
        missing, solves = self.kept.error(self.z, self.residual)
        error = (missing / size).amax(dim=1)
        moved = (self.move.abs() / size).amax(dim=1)
        old_holds = solves & (moved <= _SHORT_MOVE) & (error <= _CONTRACTION * moved)
        return torch.where(old_holds, error, torch.nan)

    def inverse(self, r: Tensor) -> Tensor:
        """`J⁻¹ r` by the last factors; `−r`, as if for a constant map, before there are any."""
        return -r if self.kept is None else self.kept.solve(r)

    def inverse_transpose(self, r: Tensor) -> Tensor:
        """`J⁻ᵀ r` by the last factors; `−r` before there are any."""
        return -r if self.kept is None else self.kept.solve_transposed(r)


@dataclass(frozen=True)
class Newton(Solver):
    """`z ← z + s` with `J s = −r`, the Jacobian of every system formed and factored.

    A singular Jacobian gives the least-squares step of minimum norm; its rows are in their own units where
    the globalisation balances them, as full steps do. A system stalls where the globalisation finds no
    step that lowers the residual.

    With `refresh` other than one, factors serve several steps (Shamanskii's method), or all (the chord
    method). A step with old factors is taken in full if it lowers the residual norm. After one that does
    not halve it the factors are dropped: the next step has a new Jacobian, and the globalisation.

    Attributes:
        globalisation: The rule by which a step lowers the residual: `LineSearch()`,
            `NonmonotoneLineSearch()`, `TrustRegion()`, or `None` for full steps whatever the residual.
        refresh: Steps that the factors of a Jacobian serve; `None` for as many as halve the residual.

    Raises:
        TypeError: `globalisation` is not a globalisation.
        ValueError: `refresh` is not a positive integer or `None`.

    Source: Kelley 1995, algorithm 8.1.1, and sections 5.4.1–5.4.3 for `refresh`; Shamanskii 1967.

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.tensor([1.0, 1.0])
        >>> F = lambda z: torch.stack([z[0] ** 2 + z[1] ** 2 - 4, z[0] - z[1]])
        >>> implicitly.root(F, z0, solver=implicitly.Newton()).value
        tensor([1.4142, 1.4142])
    """

    globalisation: Globalisation | None = field(default_factory=TrustRegion)
    refresh: int | None = 1
    needs: ClassVar[str] = "dense Jacobians"
    suits: ClassVar[str] = "few unknowns, many systems; also chord and Shamanskii steps"

    default_max_steps: ClassVar[int] = 100
    has_inverse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_globalisation(self.globalisation)
        check_optional_integer("refresh", self.refresh, 1)

    @property
    def most_patience(self) -> float:
        # A line search may crawl along a valley.
        return DESCENT_PATIENCE if isinstance(self.globalisation, TrustRegion) else math.inf

    @property
    def _rule(self) -> Globalisation:
        return self.globalisation or FullSteps()

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> NewtonState:
        point = Point.of(z, residual)
        return NewtonState(point, self._rule.begin(point), torch.zeros_like(point.norm))

    def step(self, problem: Problem, state: NewtonState) -> NewtonState:
        following = self._step(problem, state)
        following.move = following.z - state.z
        return following

    def _step(self, problem: Problem, state: NewtonState) -> NewtonState:
        settled = settled_systems(problem, state.point.norm)
        kept = state.kept
        if kept is None or self.refresh == 1:
            return self._fresh(problem, state, settled)
        old = (kept.age < (torch.inf if self.refresh is None else self.refresh)) & ~settled
        if not bool(old.any()):
            return self._fresh(problem, state, settled)
        z = state.z - torch.where(old.unsqueeze(1), kept.solve(state.residual), 0.0)
        trial = Point.of(z, problem.residual(z), state.weights)
        before = state.point.norm
        lower = old & (trial.norm < before)
        age = torch.where(trial.norm <= _ENOUGH * before, kept.age + 1, torch.inf)
        kept = replace(kept, age=torch.where(old, age, kept.age))
        point = state.point.or_else(lower, trial)
        moved = NewtonState(point, state.memory, torch.zeros_like(before), kept, state.weights)
        settled = settled | lower
        return moved if bool(settled.all()) else self._fresh(problem, moved, settled)

    def _fresh(self, problem: Problem, state: NewtonState, settled: Tensor) -> NewtonState:
        """A step with the Jacobian at the iterate; the systems `settled` are fixed."""
        matrices = problem.linearization(state.z).jacobian(state.z)
        lengths = torch.linalg.vector_norm(matrices, dim=2)
        balanced = self._rule.balance
        scales = powers_of_two(lengths) if balanced else torch.ones_like(lengths)
        scaled = scales.unsqueeze(2) * matrices
        kept = KeptFactors(DenseFactors.of(scaled), scales, torch.ones_like(state.point.norm))
        move = -kept.solve(state.residual)
        if state.kept is not None and self.refresh != 1:
            kept = kept.or_else(settled, state.kept)
        start, memory, weights = state.point, state.memory, state.weights
        if balanced and weights is None:
            weights = 1.0 / units(lengths, state.z)
            start = Point.of(state.z, state.residual, weights)
            memory = self._rule.begin(start)
        model = dense_model(matrices, state.residual, weights, move, problem.linear)
        advance = self._rule.advance(
            lambda z: Point.of(z, problem.residual(z), weights), start, model, memory, settled
        )
        end_status = torch.where(advance.accepted, 0, int(Status.STALLED))
        solvable = torch.isfinite(move).all(dim=1) | settled
        end_status = torch.where(solvable, end_status, int(Status.LINEAR_SOLVE_FAILED))
        return NewtonState(advance.point, advance.memory, end_status, kept, weights)


def dense_model(
    matrices: Tensor, residual: Tensor, weights: Tensor | None, step: Tensor, exact: bool
) -> Model:
    """The linear model of Jacobians `(batch, n, n)`."""
    if weights is not None:
        matrices, residual = weights.unsqueeze(2) * matrices, weights * residual
    return Model(
        residual,
        step,
        jvp=lambda v: product(matrices, v),
        vjp=lambda u: torch.bmm(u.unsqueeze(1), matrices).squeeze(1),
        lengths=torch.linalg.vector_norm(matrices, dim=1),
        exact=exact,
    )
