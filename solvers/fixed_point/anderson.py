"""Anderson acceleration, types I and II."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from ...options.options import check_integer, check_optional_integer, is_number, is_positive
from ..compiled.anderson_step import AndersonArrays, compiled_step
from ..compiled.steps import check_compiled, runs_compiled
from ..interface.plain import PlainSteps, Point
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
    fast: Tensor
    """Boolean: plain steps have been fast enough until now."""
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


@dataclass
class PlainState:
    """Iterate of a batch in which plain steps are still fast enough for every system."""

    z: Tensor
    residual: Tensor
    first: Tensor
    mixing: Tensor | None
    size: Tensor
    fast: Tensor
    growth: Tensor
    """The factor by which the last step changed the norm, `(batch, 1)`; 1 at the start."""
    residual_before: Tensor
    target_before: Tensor
    """Residual and plain step of the point before."""
    count: int

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
        plain_below: A system takes plain steps for as long as each multiplies its residual norm by at most
            this factor: an extrapolation costs several plain steps on small systems. `None` extrapolates from
            the first step on.
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
    plain_below: float | None = None
    compiled: bool = False
    suits: ClassVar[str] = "the default for fixed points"

    default_max_steps: ClassVar[int] = 2000

    def __post_init__(self) -> None:
        check_integer("memory", self.memory, 1)
        if not is_positive(self.mixing):
            raise ValueError(f"mixing must be a positive number, got {self.mixing!r}")
        if self.kind not in ("I", "II"):
            raise ValueError(f"kind must be 'I' or 'II', got {self.kind!r}")
        if self.regularisation is not None and not is_positive(self.regularisation):
            raise ValueError(
                f"regularisation must be positive or None, got {self.regularisation!r}"
            )
        check_optional_integer("restart", self.restart, 1)
        if self.safeguard is not None and not is_number(self.safeguard, 1):
            raise ValueError(f"safeguard must be a number ≥ 1 or None, got {self.safeguard!r}")
        if self.plain_below is not None and not is_positive(self.plain_below):
            raise ValueError(f"plain_below must be positive or None, got {self.plain_below!r}")
        if self.plain_below is not None and self.compiled:
            raise ValueError(
                "compiled=True extrapolates from the first step on: give plain_below=None"
            )
        check_compiled(self.compiled, self.kind, "II")

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> AndersonState | PlainState:
        length = first_step_length(problem, z, residual)
        mixing = None if length is None else self.mixing * length
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
        first = size.detach().masked_fill(size == 0, 1.0)
        fast = torch.full_like(size, self.plain_below is not None, dtype=torch.bool)
        if self.plain_below is None:
            return self._remembering(z, residual, first, mixing, size, fast, 0)
        ones = torch.ones_like(first)
        return PlainState(z, residual, first, mixing, size, fast, ones, residual, residual, 0)

    def _remembering(
        self,
        z: Tensor,
        residual: Tensor,
        first: Tensor,
        mixing: Tensor | None,
        size: Tensor,
        fast: Tensor,
        count: int,
    ) -> AndersonState:
        """A state without past moves."""
        batch, n = z.shape
        slots = self.memory + 1
        identity = torch.eye(slots, dtype=z.dtype, device=z.device).expand(batch, -1, -1)
        ring = Ring(
            residuals=z.new_zeros(batch, slots, n),
            targets=z.new_zeros(batch, slots, n),
            weights=residual.new_zeros(batch, 1, slots),
            floor=FLOOR * identity,
        )
        now = ring.slot(count)
        now.residual.copy_(residual)
        now.target.copy_(self._plain(z, residual, mixing))
        rounding = torch.finfo(z.dtype)
        relative = 16 * rounding.eps if self.regularisation is None else self.regularisation
        strict = torch.ones_like(size)
        lenient = torch.full_like(size, self.safeguard or torch.inf)
        return AndersonState(
            z, residual, ring, first, identity, mixing, size, strict, strict, lenient,
            torch.ones_like(size, dtype=torch.bool), fast, relative, rounding.tiny, count=count,
        )  # fmt: skip

    def _plain(self, z: Tensor, residual: Tensor, mixing: Tensor | None) -> Tensor:
        """The iterate after a plain step."""
        if mixing is None:
            return torch.add(z, residual, alpha=self.mixing)
        return torch.addcmul(z, mixing, residual)

    def plain_steps(self, problem: Problem, state: AndersonState | PlainState) -> PlainSteps | None:
        if not isinstance(state, PlainState) or not bool(state.fast.all()):
            return None
        start = state

        def advance(z: Tensor, residual: Tensor) -> Point:
            z = self._plain(z, residual, start.mixing)
            return z, problem.residual(z)

        def reached(before: Point, now: Point, taken: int) -> PlainState:
            size = torch.linalg.vector_norm(before[1], dim=1, keepdim=True)
            earlier = replace(start, z=before[0], residual=before[1], size=size)
            return self._after(replace(earlier, count=start.count + taken - 1), *now)

        return PlainSteps(advance, self.plain_below, reached)

    def _plain_step(self, problem: Problem, state: PlainState) -> PlainState:
        z = self._plain(state.z, state.residual, state.mixing)
        following = self._after(state, z, problem.residual(z))
        if problem.finished is not None:  # A finished system stays where it is.
            following.fast |= state.fast & problem.finished
        return following

    def _after(self, state: PlainState, z: Tensor, residual: Tensor) -> PlainState:
        """The state after a plain step to `z`."""
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
        growth = size / state.size
        fast = state.fast & ~(growth > self.plain_below)
        return PlainState(
            z, residual, state.first, state.mixing, size, fast, growth, state.residual, z,
            state.count + 1,
        )  # fmt: skip

    def _begin(self, state: PlainState) -> AndersonState:
        """Remember the last plain step, as if all had been remembered."""
        new = self._remembering(
            state.z, state.residual, state.first, state.mixing, state.size, state.fast, state.count
        )
        before, now = new.ring.slot(state.count - 1), new.ring.slot(state.count)
        before.residual.copy_(state.residual_before).sub_(now.residual)
        before.target.copy_(state.target_before).sub_(now.target)
        before.weight.copy_((state.size.detach() * state.first).clamp_min(new.tiny).reciprocal())
        if self.safeguard is not None:
            new.limit = torch.where(state.growth > EXPANSION, new.lenient, new.strict)
        new.plain = (state.growth > new.limit) | state.fast
        new.ring.weight_rows.masked_fill_(new.plain, 0.0)
        return new

    def step(
        self, problem: Problem, state: AndersonState | PlainState
    ) -> AndersonState | PlainState:
        if isinstance(state, PlainState):
            # Tensors within a transform cannot be asked; they remember from the first step on.
            if not is_functorch_wrapped_tensor(state.fast) and bool(state.fast.all()):
                return self._plain_step(problem, state)
            state = self._begin(state)
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
        fast = state.fast
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
            if self.plain_below is not None:
                fast = fast & ~(growth > self.plain_below)
                plain = plain | fast
            ring.weight_rows.masked_fill_(plain, 0.0)
        if self.restart is not None and count % self.restart == 0:
            ring.weights.zero_()
            plain = torch.ones_like(plain)
        return AndersonState(
            z, residual, ring, state.first, state.identity, mixing, size, limit,
            state.strict, state.lenient, plain, fast, state.relative, state.tiny, count,
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
