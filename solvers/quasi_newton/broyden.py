"""Broyden's quasi-Newton methods with limited memory and a line search per system."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...options.options import check_integer, is_number
from ..compiled.broyden_step import BroydenArrays, compiled_step
from ..compiled.steps import check_compiled, runs_compiled
from ..interface.problem import Problem
from ..interface.scale import first_step_length
from ..interface.solver import Solver
from .rank_reduction import reduce_rank

_FIRST_CAPACITY = 8
# An update is skipped where |sᵀHy| is below this fraction of sᵀs: it would make H nearly singular.
SMALLEST_CURVATURE = 1e-4
# A rank reduction drops this fraction of the updates at once, because it costs as much as some steps.
_PART_GIVEN_UP = 0.25


@dataclass
class BroydenState:
    """`H = Σ uᵢ vᵢᵀ − t·I` approximates the inverse Jacobian; `direction = −H r`.

    Rows are `(batch, 1, n)` and numbers per system `(batch, 1, 1)`, as batched products take them.
    """

    z_row: Tensor
    residual_row: Tensor
    size: Tensor
    """Residual norms."""
    direction: Tensor
    length: Tensor
    """Line-search length of the next trial."""
    updates: Tensor
    """The rows `uᵢ` and `vᵢ`, `(batch, capacity, 2, n)`; rows not yet in use are not initialised."""
    used: int
    """Updates in use."""
    first_length: Tensor | None
    """`t`; `None` for 1."""
    count: int
    z_size: Tensor | None = None
    """Norms of the iterates, where they are known."""
    arrays: BroydenArrays | None = field(default=None, init=False)
    """The memory of this state as arrays, where compiled code made it."""

    @cached_property
    def z(self) -> Tensor:
        """The accepted iterate, `(batch, n)`."""
        return self.z_row.squeeze(1)

    @property
    def residual(self) -> Tensor:
        """Its residual, `(batch, n)`."""
        return self.residual_row.squeeze(1)

    @property
    def norm(self) -> Tensor:
        """Residual norms, `(batch,)`."""
        return self.size.flatten()

    @property
    def z_norm(self) -> Tensor | None:
        """Norms of the iterates, `(batch,)`, where they are known."""
        return None if self.z_size is None else self.z_size.flatten()

    def inverse(self, r: Tensor) -> Tensor:
        """`H r` for `r` of shape `(batch, n)`."""
        left, right = self.factors()
        return -self.negative(r.unsqueeze(1), right, left).squeeze(1)

    def inverse_transpose(self, r: Tensor) -> Tensor:
        """`Hᵀ r` for `r` of shape `(batch, n)`."""
        left, right = self.factors()
        return -self.negative(r.unsqueeze(1), left, right).squeeze(1)

    def factors(self) -> tuple[Tensor, Tensor]:
        """All `uᵢ` and all `vᵢ` as rows, `(batch, used, n)`."""
        left, right = self.updates.narrow(1, 0, self.used).unbind(2)
        return left, right

    def negative(self, row: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
        """`−H r` as rows with `inner` the `vᵢ` and `outer` the `uᵢ`; `−Hᵀ r` the other way round."""
        coefficients = torch.bmm(row, inner.mT)
        start = row if self.first_length is None else self.first_length * row
        return torch.baddbmm(start, coefficients, outer, alpha=-1)


@dataclass(frozen=True)
class Broyden(Solver):
    """Newton steps `z ← z − αHr` with an inverse Jacobian `H` learned from the steps themselves.

    The good update is `H ← H + (s − Hy) sᵀH / sᵀHy`, the bad one `H ← H + (s − Hy) yᵀ / yᵀy`; after
    either, `H y = s`. Once `memory` updates are stored, their sum is replaced by the nearest matrix whose
    rank is a quarter lower. That happens *before* the next update is computed, so that the secant
    equation holds for the matrix that is then used.

    Each step evaluates one trial point of every system, so that no line search waits for another. Where
    the residual norm grew by more than a factor `1 + growth / k²` (Li & Fukushima's summable allowance),
    the system keeps its iterate, updates `H` from the trial all the same, and tries half the length.

    Attributes:
        memory: Number of stored updates. Storage grows with the updates made, up to this. With three
            quarters of it at least as many as the unknowns, no reduction loses anything.
        kind: `"good"` or `"bad"`.
        line_search: Reject trial points at which the residual grew too much; without it every step is
            taken in full.
        growth: The relative growth of the residual norm allowed in the first step.
        compiled: Compute the step of each system in one pass of compiled code, where the tensors are on
            a CPU in float32 or float64 and autograd does not record; elsewhere the option changes
            nothing. It pays from some hundred steps on: the first use in a process takes a third of a
            second, the first on a machine some seconds more. It runs in one thread. For the good update.

    Raises:
        ValueError: An option is out of range.

    Source: Broyden 1965 (both updates); Sherman & Morrison 1950 (the inverse form); van de Rotten &
    Verduyn Lunel 2005 (rank reduction); Li & Fukushima 2000 (derivative-free line search, eq. 2.4).

    Examples:
        >>> import torch, implicitly
        >>> solver = implicitly.Broyden()
        >>> z = implicitly.root(lambda z: z**3 - 8, torch.tensor(1.0), solver=solver).value
        >>> round(z.item(), 4)
        2.0
    """

    memory: int = 100
    kind: Literal["good", "bad"] = "good"
    line_search: bool = True
    growth: float = 1.0
    compiled: bool = False
    suits: ClassVar[str] = "where plain iteration diverges"
    has_inverse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("memory", self.memory, 1)
        if self.kind not in ("good", "bad"):
            raise ValueError(f"kind must be 'good' or 'bad', got {self.kind!r}")
        if not is_number(self.growth, 0):
            raise ValueError(f"growth must be a number ≥ 0, got {self.growth!r}")
        check_compiled(self.compiled, self.kind, "good")

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> BroydenState:
        batch, n = z.shape
        row = residual.unsqueeze(1)
        length = first_step_length(problem, z, residual)
        first_length = None if length is None else length.unsqueeze(2)
        return BroydenState(
            z_row=z.unsqueeze(1),
            residual_row=row,
            size=torch.linalg.vector_norm(row, dim=2, keepdim=True),
            direction=row if first_length is None else first_length * row,
            length=z.new_ones(batch, 1, 1),
            updates=z.new_empty(batch, min(self.memory, _FIRST_CAPACITY), 2, n),
            used=0,
            first_length=first_length,
            count=0,
        )

    def step(self, problem: Problem, state: BroydenState) -> BroydenState:
        trial = torch.addcmul(state.z_row, state.length, state.direction)
        residual = problem.residual(trial.squeeze(1)).unsqueeze(1)
        taken = state.direction
        if state.used == self.memory:
            state = self._reduced(state)
        if self.compiled and runs_compiled(state.z_row, residual):
            updates = self._with_room(state)
            growth = 1.0 + self.growth / (state.count + 1) ** 2 if self.line_search else torch.inf
            limits = (growth, SMALLEST_CURVATURE)
            return compiled_step(state, updates, taken, trial, residual.contiguous(), limits)
        s = state.length * taken
        size = torch.linalg.vector_norm(residual, dim=2, keepdim=True)

        left, right = state.factors()
        direction = state.negative(residual, right, left)
        negative_y = direction - state.direction
        column = s.mT
        if self.kind == "good":
            v = state.negative(s, left, right)
            denominator = torch.bmm(negative_y, column)
            scale = torch.bmm(s, column)
        else:
            v = residual - state.residual_row
            denominator = scale = torch.bmm(v, v.mT)
        singular = denominator.abs() <= SMALLEST_CURVATURE * scale
        u = (s + negative_y) / denominator.masked_fill(singular, torch.inf)
        # A trial that is not finite gives no update.
        u = u.nan_to_num(0.0, 0.0, 0.0)
        if self.kind == "bad":
            v = v.nan_to_num(0.0, 0.0, 0.0)
        count = state.count + 1

        length = state.length
        if self.line_search:
            accepted = size <= (1.0 + self.growth / count**2) * state.size
            size = torch.where(accepted, size, state.size)
            trial = torch.where(accepted, trial, state.z_row)
            residual = torch.where(accepted, residual, state.residual_row)
            direction = torch.where(accepted, direction, state.direction)
            length = (0.5 * length).masked_fill(accepted, 1.0)
        # H has changed by u vᵀ since the direction was computed; vᵀr = −sᵀHr for the good update.
        weight = torch.bmm(direction, column) if self.kind == "good" else torch.bmm(residual, v.mT)
        return BroydenState(
            z_row=trial,
            residual_row=residual,
            size=size,
            direction=direction.addcmul(u, weight, value=-1),
            length=length,
            updates=self._stored(state, u, v),
            used=state.used + 1,
            first_length=state.first_length,
            count=count,
        )

    def _reduced(self, state: BroydenState) -> BroydenState:
        """The state with room for updates: the sum of its updates is replaced by one of lower rank."""
        rank = self.memory - max(round(_PART_GIVEN_UP * self.memory), 1)
        left, right = reduce_rank(*state.factors(), rank)
        used = left.shape[1]
        updates = torch.empty_like(state.updates)
        updates.narrow(1, 0, used).copy_(torch.stack((left, right), dim=2))
        direction = state.negative(state.residual_row, right, left)
        return replace(state, direction=direction, updates=updates, used=used)

    def _stored(self, state: BroydenState, u: Tensor, v: Tensor) -> Tensor:
        """The updates with one more."""
        updates = self._with_room(state)
        if torch.is_grad_enabled():
            # The graph of this step keeps the tensors that it has read: write to a copy.
            updates = updates.clone() if updates is state.updates else updates
            updates.select(1, state.used).copy_(torch.cat((u, v), dim=1))
        else:
            torch.cat((u, v), dim=1, out=updates.select(1, state.used))
        return updates

    def _with_room(self, state: BroydenState) -> Tensor:
        """The storage of the updates; if it is full, a copy in storage of twice the size."""
        updates = state.updates
        batch, capacity, _, n = updates.shape
        if state.used == capacity:
            updates = updates.new_empty(batch, min(2 * capacity, self.memory), 2, n)
            updates.narrow(1, 0, capacity).copy_(state.updates)
        return updates
