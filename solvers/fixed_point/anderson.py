"""Anderson acceleration, types I and II."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...options.options import is_integer, is_number, is_positive
from ..compiled.steps import check_compiled, runs_compiled
from ..interface.problem import Problem
from ..interface.scale import first_step_length
from ..interface.solver import Solver
from .ring import Ring

# Beside it no equation in use is small: their entries are residual norms over that of the first.
_FLOOR = 1e-30
# A plain step that makes the residual grow by more than this tells of a map that expands.
_EXPANSION = 1.2


class _Arrays(NamedTuple):
    """A state as compiled code takes it."""

    ring: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Residuals, targets and weights."""
    first: np.ndarray
    mixing: np.ndarray
    limits: tuple[np.ndarray, np.ndarray, np.ndarray]
    """The limit, the strict and the lenient one."""
    plain: np.ndarray
    size: np.ndarray


@dataclass
class AndersonState:
    """The iterate and the past moves."""

    z: Tensor
    residual: Tensor
    ring: Ring
    first: Tensor
    """The norm of the first residual, `(batch, 1)`."""
    identity: Tensor
    mixing: Tensor | None
    """`β` per system, `(batch, 1)`, or `None` where it is the solver's option itself."""
    size: Tensor
    """Residual norms, `(batch, 1)`."""
    limit: Tensor
    """The growth in a step beyond which moves are forgotten, `(batch, 1)`."""
    strict: Tensor
    lenient: Tensor
    """The two limits."""
    plain: Tensor
    """Whether the next step is a plain one."""
    relative: float
    """The relative increase of the diagonal."""
    tiny: float
    count: int
    z_size: Tensor | None = None
    """Norms of the iterates, `(batch, 1)`, where they are known."""
    following: Tensor | None = None
    """The next iterate, where it is known."""
    arrays: _Arrays | None = field(default=None, init=False)
    """The memory of this very state, where compiled code made it."""

    @property
    def z_norm(self) -> Tensor | None:
        """Norms of the iterates, `(batch,)`, where they are known."""
        return None if self.z_size is None else self.z_size.flatten()

    @property
    def norm(self) -> Tensor:
        """Residual norms, `(batch,)`."""
        return self.size.flatten()


@dataclass(frozen=True)
class Anderson(Solver):
    """Extrapolate from the last `memory` moves: `z ← z + βr − (ΔZ + βΔR) γ`.

    Type II takes the `γ` that minimises `‖r − ΔR γ‖`, type I solves `ΔZᵀ(r − ΔR γ) = 0`. Each diagonal
    entry of the Gram matrix is regularised in proportion to itself, as if all moves had unit norm: in
    an adjoint equation of size 1e-12 as in any other.

    Attributes:
        memory: Number of past moves.
        mixing: `β`, the weight of the residual. For roots it is in units of a first step found by one
            product with the Jacobian, so that rescaling the equation changes nothing.
        kind: `"II"` or `"I"`.
        regularisation: Relative increase of the diagonal of the Gram matrix; `None` for 16 units of
            rounding of the iterates' dtype.
        restart: Forget all moves every so many steps; `None` never.
        safeguard: Forget a system's moves, and take a plain step, when its residual norm has grown
            in a step; where the last plain step made it grow by more than a fifth, only if it has
            grown by more than this factor; `None` never. So it keeps up with plain iteration on
            non-normal contractions, and solves maps that expand.
        compiled: Compute the step of each system at once in compiled code, where the tensors are on a
            CPU in float32 or float64 and nothing records; elsewhere the option changes nothing.
            Worth it from some hundred steps on: the first use in a process takes a third of
            a second, the first ever some seconds more. It runs in one thread. For type II.

    Raises:
        ValueError: An option is out of range.

    Source: Anderson 1965; Walker & Ni 2011 (type II as least squares, eq. 2.1); Fang & Saad 2009
    (types I and II, eqs. 22–25).

    Examples:
        >>> import torch, implicitly
        >>> solver = implicitly.Anderson(memory=3)
        >>> solution = implicitly.fixed_point(torch.cos, torch.tensor(1.0), solver=solver)
        >>> round(solution.value.item(), 5)
        0.73909
    """

    memory: int = 5
    mixing: float = 1.0
    kind: Literal["I", "II"] = "II"
    regularisation: float | None = None
    restart: int | None = None
    safeguard: float | None = 10.0
    compiled: bool = False
    default_max_steps: ClassVar[int] = 2000

    def __post_init__(self) -> None:
        if not is_integer(self.memory, 1):
            raise ValueError(f"memory must be an integer ≥ 1, got {self.memory!r}")
        if not is_positive(self.mixing):
            raise ValueError(f"mixing must be a positive number, got {self.mixing!r}")
        if self.kind not in ("I", "II"):
            raise ValueError(f"kind must be 'I' or 'II', got {self.kind!r}")
        if self.regularisation is not None and not is_positive(self.regularisation):
            raise ValueError(
                f"regularisation must be positive or None, got {self.regularisation!r}"
            )
        if self.restart is not None and not is_integer(self.restart, 1):
            raise ValueError(f"restart must be an integer ≥ 1 or None, got {self.restart!r}")
        if self.safeguard is not None and not is_number(self.safeguard, 1):
            raise ValueError(f"safeguard must be a number ≥ 1 or None, got {self.safeguard!r}")
        check_compiled(self.compiled, self.kind, "II")

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> AndersonState:
        length = first_step_length(problem, z, residual)
        mixing = None if length is None else self.mixing * length
        batch, n = z.shape
        slots = self.memory + 1
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
        first = size.detach().masked_fill(size == 0, 1.0)
        identity = torch.eye(slots, dtype=z.dtype, device=z.device).expand(batch, -1, -1)
        ring = Ring(
            residuals=z.new_zeros(batch, slots, n),
            targets=z.new_zeros(batch, slots, n),
            weights=residual.new_zeros(batch, 1, slots),
            floor=_FLOOR * identity,
        )
        ring.slot(0).residual.copy_(residual)
        step = self.mixing * residual if mixing is None else mixing * residual
        ring.slot(0).target.copy_(z + step)
        rounding = torch.finfo(z.dtype)
        relative = 16 * rounding.eps if self.regularisation is None else self.regularisation
        strict = torch.ones_like(size)
        lenient = torch.full_like(size, self.safeguard or torch.inf)
        return AndersonState(
            z, residual, ring, first, identity, mixing, size, strict, strict, lenient,
            torch.ones_like(size, dtype=torch.bool), relative, rounding.tiny, count=0,
        )  # fmt: skip

    def step(self, problem: Problem, state: AndersonState) -> AndersonState:
        if self.compiled and runs_compiled(state.z, state.residual):
            return self._compiled_step(problem, state)
        ring, mixing, count = state.ring, state.mixing, state.count + 1
        z = torch.bmm(self._combination(state), ring.targets).squeeze(1)
        residual = problem.residual(z)
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
        if torch.is_grad_enabled():
            # What the graph of this step has read must not be written to.
            ring = ring.copy()
        before, now = ring.slot(state.count), ring.slot(count)
        now.residual.copy_(residual)
        if mixing is None:
            now.target.copy_(z).add_(residual, alpha=self.mixing)
        else:
            now.target.copy_(z).addcmul_(mixing, residual)
        before.residual.sub_(now.residual)
        before.target.sub_(now.target)
        # A residual that has vanished leaves no equation, and must not leave 0 · ∞ either.
        length = (size.detach() * state.first).clamp_min(state.tiny)
        before.weight.copy_(length.reciprocal())
        now.weight.zero_()
        if torch.is_grad_enabled():
            # Nor has a residual that did not change at all an influence, in derivatives too.
            ring.weight_rows.mul_(ring.residuals.detach().any(dim=2))
        limit, plain = state.limit, state.plain
        if self.safeguard is not None:
            growth = size / state.size
            found = torch.where(growth > _EXPANSION, state.lenient, state.strict)
            limit = torch.where(plain, found, limit)
            plain = growth > limit
            ring.weight_rows.masked_fill_(plain, 0.0)
        if self.restart is not None and count % self.restart == 0:
            ring.weights.zero_()
            plain = torch.ones_like(plain)
        return AndersonState(
            z, residual, ring, state.first, state.identity, mixing, size, limit,
            state.strict, state.lenient, plain, state.relative, state.tiny, count,
        )  # fmt: skip

    def _compiled_step(self, problem: Problem, state: AndersonState) -> AndersonState:
        """The same in compiled code, which gives the step after this one its iterate too."""
        # Numba takes a sixth of a second to import.
        from .anderson_kernel import type_two_step

        z, ring, count = state.following, state.ring, state.count + 1
        if z is None:
            z = torch.bmm(self._combination(state), ring.targets).squeeze(1)
        residual = problem.residual(z).contiguous()
        before = state.arrays or self._arrays(state)
        slots = ring.residuals.shape[1]
        sizes = np.empty((2, *before.size.shape), before.size.dtype)
        following = np.empty(z.shape, before.size.dtype)
        type_two_step(
            *before.ring,
            before.first,
            before.mixing,
            before.limits,
            before.plain,
            (state.count % slots, count % slots),
            z.numpy(),
            residual.numpy(),
            before.size,
            (
                _FLOOR,
                state.relative,
                state.tiny,
                np.inf if self.safeguard is None else _EXPANSION,
            ),
            self.restart is not None and count % self.restart == 0,
            sizes,
            following,
        )
        after = AndersonState(
            z, residual, ring, state.first, state.identity, state.mixing, torch.from_numpy(sizes[0]),
            torch.from_numpy(before.limits[0]), state.strict, state.lenient,
            torch.from_numpy(before.plain), state.relative, state.tiny, count,
            torch.from_numpy(sizes[1]), torch.from_numpy(following),
        )  # fmt: skip
        after.arrays = before._replace(size=sizes[0])
        return after

    def _arrays(self, state: AndersonState) -> _Arrays:
        """The memory of a state that knows of none; a copy of what is written beside the ring."""
        ring, size = state.ring, state.size
        mixing = torch.full_like(size, self.mixing) if state.mixing is None else state.mixing
        return _Arrays(
            (ring.residuals.numpy(), ring.targets.numpy(), ring.weights.numpy()),
            state.first.numpy(),
            mixing.numpy(),
            (state.limit.clone().numpy(), state.strict.numpy(), state.lenient.numpy()),
            state.plain.clone().numpy(),
            size.numpy(),
        )

    def _combination(self, state: AndersonState) -> Tensor:
        """The weights of the rows in the next iterate, 1 for the current point, `(batch, 1, slots)`.

        The `x` with `x_c = 1` for the current slot `c` that makes `Σ xᵢ rᵢ` orthogonal to each past `δrⱼ`,
        for type I to each `δzⱼ`. Where a weight is zero the equation is `floor · xⱼ = floor · [j = c]`;
        the others are scaled to be of one size, as elimination with pivoting wants them.
        """
        ring = state.ring
        if self.kind == "II":
            gram = increase = torch.bmm(ring.residuals, ring.columns)
        else:
            gram = torch.bmm(ring.residuals, self._moves(state).mT)
            # Away from zero, on the side where the entry is.
            size = torch.linalg.vector_norm(ring.residuals, dim=2, keepdim=True)
            increase = torch.where(gram < 0, -size, size)
        gram = torch.addcmul(gram, state.identity, increase, value=state.relative)
        equations = torch.addcmul(ring.floor, gram, ring.weights)
        right = ring.slot(state.count).right
        return torch.linalg.solve_ex(equations, right, left=False).result

    def _moves(self, state: AndersonState) -> Tensor:
        """`ΔZ` with rows of unit norm."""
        mixing = self.mixing if state.mixing is None else state.mixing.unsqueeze(2)
        moves = state.ring.targets - mixing * state.ring.residuals
        return torch.nn.functional.normalize(moves, dim=2, eps=state.tiny)
