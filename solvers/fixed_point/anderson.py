"""Anderson acceleration, types I and II."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...options.options import is_integer, is_number, is_positive
from ..compiled.anderson_step import AndersonArrays, compiled_step
from ..compiled.steps import check_compiled, runs_compiled
from ..interface.problem import Problem
from ..interface.scale import first_step_length
from ..interface.solver import Solver
from .ring import Ring

# Regularisation floor; equations are normalised by the first residual, so in-use rows are far above it.
FLOOR = 1e-30
# The map counts as expanding where a plain step multiplies the residual norm by more than this.
EXPANSION = 1.2


@dataclass
class AndersonState:
    """Iterate and past moves."""

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
    """The growth in a step beyond which moves are dropped, `(batch, 1)`."""
    strict: Tensor
    lenient: Tensor
    """The two values that `limit` takes."""
    plain: Tensor
    """Boolean: the next step is a plain one."""
    relative: float
    """The relative increase of the diagonal."""
    tiny: float
    count: int
    z_size: Tensor | None = None
    """Norms of the iterates, `(batch, 1)`, where they are known."""
    following: Tensor | None = None
    """The next iterate, where it is known."""
    arrays: AndersonArrays | None = field(default=None, init=False)
    """The memory of this state as arrays, where compiled code made it."""

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
    entry of the Gram matrix is regularised in proportion to itself, as if all moves had unit norm, so
    that the size of the equation does not matter (an adjoint may be of size 1e-12).

    Attributes:
        memory: Number of past moves.
        mixing: `β`, the weight of the residual. For roots it is in units of a first step found by one
            product with the Jacobian, so that rescaling the equation changes nothing.
        kind: `"II"` or `"I"`.
        regularisation: Relative increase of the diagonal of the Gram matrix; `None` for 16 units of
            rounding of the iterates' dtype.
        restart: Drop all moves every so many steps; `None` for no restarts.
        safeguard: Drop a system's moves, and take a plain step, when its residual norm has grown in a
            step. On a map that expands (the last plain step made the norm grow by more than a fifth) that
            happens only when the norm has grown by more than this factor. So the method keeps up with
            plain iteration on non-normal contractions, and solves maps that expand. `None` for no
            safeguard.
        compiled: Compute the step of each system at once in compiled code, where the tensors are on a
            CPU in float32 or float64 and autograd does not record; elsewhere the option changes nothing.
            It pays from some hundred steps on: the first use in a process takes a third of a second,
            the first on a machine some seconds more. It runs in one thread. For type II.

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
    suits: ClassVar[str] = "the default for fixed points"

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
            floor=FLOOR * identity,
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
            return compiled_step(self, problem, state, FLOOR, EXPANSION)
        ring, mixing, count = state.ring, state.mixing, state.count + 1
        z = torch.bmm(self.combination(state), ring.targets).squeeze(1)
        residual = problem.residual(z)
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
        if torch.is_grad_enabled():
            # The graph of this step keeps the tensors that it has read: write to copies.
            ring = ring.copy()
        before, now = ring.slot(state.count), ring.slot(count)
        now.residual.copy_(residual)
        if mixing is None:
            now.target.copy_(z).add_(residual, alpha=self.mixing)
        else:
            now.target.copy_(z).addcmul_(mixing, residual)
        before.residual.sub_(now.residual)
        before.target.sub_(now.target)
        # A residual of zero gives an equation of zeros; its weight must be finite, or 0 · ∞ is NaN.
        length = (size.detach() * state.first).clamp_min(state.tiny)
        before.weight.copy_(length.reciprocal())
        now.weight.zero_()
        if torch.is_grad_enabled():
            # A residual that did not change has no influence; its derivatives must have none either.
            ring.weight_rows.mul_(ring.residuals.detach().any(dim=2))
        limit, plain = state.limit, state.plain
        if self.safeguard is not None:
            growth = size / state.size
            found = torch.where(growth > EXPANSION, state.lenient, state.strict)
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

    def combination(self, state: AndersonState) -> Tensor:
        """The weights of the rows in the next iterate, 1 for the current point, `(batch, 1, slots)`.

        They are the `x` with `x_c = 1` for the current slot `c` that makes `Σ xᵢ rᵢ` orthogonal to each
        past `δrⱼ`, for type I to each `δzⱼ`. An equation of weight zero is `floor · xⱼ = floor · [j = c]`;
        the others are scaled to one size, which keeps elimination with pivoting accurate.
        """
        ring = state.ring
        if self.kind == "II":
            gram = increase = torch.bmm(ring.residuals, ring.columns)
        else:
            gram = torch.bmm(ring.residuals, self._moves(state).mT)
            # Increase an entry away from zero, whatever its sign.
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
