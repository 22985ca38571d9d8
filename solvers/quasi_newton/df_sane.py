"""DF-SANE: steps along the residual itself, without derivatives and without stored vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...options.options import check_integer, is_positive
from ..interface.problem import Problem
from ..interface.scale import first_length
from ..interface.solver import Solver
from ..newton.parabola import LONGEST_CUT, SHORTEST_CUT, SUFFICIENT_DECREASE

# Limits on the spectral coefficient, as multiples of the first one.
_SHORTEST, _LONGEST = 1e-10, 1e10


@dataclass
class DFSANEState:
    """Accepted iterate and next trial; numbers per system are `(batch, 1)`."""

    z: Tensor
    residual: Tensor
    size: Tensor
    """Residual norms."""
    length: Tensor
    """The spectral coefficient `σ`: the direction is `σ r`."""
    merits: Tensor
    """Squares of the last accepted norms in units of the first, `(batch, memory)`."""
    along: Tensor
    """The next trial length along the direction."""
    against: Tensor
    """The next trial length against it."""
    reversed: Tensor
    """Boolean: the next trial is against the direction."""
    accepted: Tensor
    """Steps accepted so far."""
    first_size: Tensor
    first_length: Tensor

    @property
    def norm(self) -> Tensor:
        """Residual norms, `(batch,)`."""
        return self.size.squeeze(1)


@dataclass(frozen=True)
class DFSANE(Solver):
    """Steps `z ← z ± α σ r` of Barzilai & Borwein's length, accepted by a non-monotone test.

    `σ = sᵀs / sᵀy` with the last move `s` and the change `y = r₋ − r`. A trial is accepted where
    `‖r₊‖² ≤ max of the last squares + allowance − 1e-4 α² ‖r‖²`; the allowances `‖r(z₀)‖² / (1 + k)²`
    add up to a finite sum. After a rejection the opposite direction is tried, then both with shorter
    steps. Each step evaluates one trial of every system, so that no line search waits for another; a
    rejected trial leaves the iterate unchanged.

    It needs one evaluation a step and a handful of vectors, and suits many unknowns with a Jacobian
    (or its negative) that is nearly positive definite. For a root, one product with the Jacobian gives
    the first `σ`, and the limits on `σ` are relative to it, so that units do not matter; the paper starts
    from `σ = 1` and has absolute limits.

    Attributes:
        memory: Number of last norms that the test compares with; 1 allows only the summable growth.
        allowance: The allowance of the first step, as a multiple of `‖r(z₀)‖²`.

    Raises:
        ValueError: An option is out of range.

    Source: La Cruz, Martínez & Raydan 2006, algorithm DF-SANE; Barzilai & Borwein 1988.

    Examples:
        >>> import torch, implicitly
        >>> F = lambda z: z + z**3 - 0.5 * z.roll(1) - 1
        >>> solution = implicitly.root(F, torch.zeros(100), solver=implicitly.DFSANE())
        >>> bool(solution.converged), bool(F(solution.value).abs().max() < 1e-5)
        (True, True)
    """

    memory: int = 10
    allowance: float = 1.0
    suits: ClassVar[str] = "very many unknowns, no stored vectors"

    default_max_steps: ClassVar[int] = 2000

    def __post_init__(self) -> None:
        check_integer("memory", self.memory, 1)
        if not is_positive(self.allowance):
            raise ValueError(f"allowance must be a positive number, got {self.allowance!r}")

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> DFSANEState:
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
        one = torch.ones_like(size)
        length = first_length(problem, z, residual)
        never = torch.zeros_like(size, dtype=torch.bool)
        return DFSANEState(
            z=z,
            residual=residual,
            size=size,
            length=length,
            merits=one.expand(-1, self.memory),
            along=one,
            against=one,
            reversed=never,
            accepted=torch.zeros_like(size),
            first_size=size,
            first_length=length,
        )

    def step(self, problem: Problem, state: DFSANEState) -> DFSANEState:
        alpha = torch.where(state.reversed, state.against, state.along)
        move = torch.where(state.reversed, -alpha, alpha) * state.length * state.residual
        trial = state.z + move
        residual = problem.residual(trial)
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)

        # A start of residual zero is a solution: any unit will do.
        unit = state.first_size.masked_fill(state.first_size == 0, 1.0)
        merit, now = (size / unit).square(), (state.size / unit).square()
        limit = state.merits.amax(dim=1, keepdim=True)
        allowed = self.allowance / (1.0 + state.accepted).square()
        good = merit <= limit + allowed - SUFFICIENT_DECREASE * alpha.square() * now

        shorter = _shortened(alpha, now, merit)
        start = torch.ones_like(alpha)
        along = torch.where(state.reversed, state.along, shorter)
        against = torch.where(state.reversed, shorter, state.against)
        extended = torch.cat((state.merits[:, 1:], merit), dim=1)
        return DFSANEState(
            z=torch.where(good, trial, state.z),
            residual=torch.where(good, residual, state.residual),
            size=torch.where(good, size, state.size),
            length=torch.where(good, self._spectral(state, move, residual), state.length),
            merits=torch.where(good, extended, state.merits),
            along=torch.where(good, start, along),
            against=torch.where(good, start, against),
            reversed=~good & ~state.reversed,
            accepted=state.accepted + good,
            first_size=state.first_size,
            first_length=state.first_length,
        )

    def _spectral(self, state: DFSANEState, move: Tensor, residual: Tensor) -> Tensor:
        """`sᵀs / sᵀy`, or the first length where that is out of range."""
        distance = torch.linalg.vector_norm(move, dim=1, keepdim=True)
        unit = move / distance.masked_fill(distance == 0, 1.0)
        slope = (unit * (state.residual - residual)).sum(dim=1, keepdim=True)
        limit = state.first_length.abs() * slope.abs()
        # A comparison with NaN is false, so numbers that are not finite are out of range too.
        usable = (distance >= _SHORTEST * limit) & (distance <= _LONGEST * limit) & (distance > 0)
        return torch.where(usable, distance / slope.masked_fill(~usable, 1.0), state.first_length)


def _shortened(alpha: Tensor, now: Tensor, merit: Tensor) -> Tensor:
    """The next trial length: the minimum of a parabola, between a tenth and a half of the last.

    The parabola in `α` has the value `‖r‖²` and the slope `−2‖r‖²` at 0, as if the direction were Newton's,
    and the value `‖r₊‖²` at the last length.
    """
    denominator = merit + (2.0 * alpha - 1.0) * now
    usable = torch.isfinite(denominator) & (denominator > 0)
    least = alpha.square() * now / denominator.masked_fill(~usable, 1.0)
    least = torch.where(usable, least, LONGEST_CUT * alpha)
    return torch.minimum(torch.maximum(least, SHORTEST_CUT * alpha), LONGEST_CUT * alpha)
