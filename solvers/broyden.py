"""Broyden's quasi-Newton methods with limited memory and a line search for every system."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .options import is_integer, is_number
from .problem import Problem
from .scale import first_step_length
from .solver import Solver

_FIRST_CAPACITY = 8
# An update whose sᵀHy is smaller than this part of sᵀs would make H nearly singular.
_SMALLEST_CURVATURE = 1e-4


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
    left: Tensor
    """`uᵢ` as rows, `(batch, capacity, n)`; unused rows are zero."""
    right: Tensor
    """`vᵢ` as rows, `(batch, capacity, n)`."""
    first_length: Tensor | None
    """`t`; `None` for 1."""
    count: int

    @property
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

    def inverse(self, r: Tensor) -> Tensor:
        """`H r` for `r` of shape `(batch, n)`."""
        return -self.negative(r.unsqueeze(1)).squeeze(1)

    def negative(self, row: Tensor) -> Tensor:
        """`−H r` as rows."""
        return self._product(row, self.right, self.left)

    def negative_transposed(self, row: Tensor) -> Tensor:
        """`−Hᵀ r` as rows."""
        return self._product(row, self.left, self.right)

    def _product(self, row: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
        coefficients = torch.bmm(row, inner.mT)
        start = row if self.first_length is None else self.first_length * row
        return torch.baddbmm(start, coefficients, outer, alpha=-1)


@dataclass(frozen=True)
class Broyden(Solver):
    """Newton steps `z ← z − αHr` with an inverse Jacobian `H` learnt from the steps themselves.

    The good update is `H ← H + (s − Hy) sᵀH / sᵀHy`, the bad one `H ← H + (s − Hy) yᵀ / yᵀy`; after
    either, `H y = s`. Once `memory` updates are stored the oldest is removed *before* the next is
    computed, so that the secant equation holds for the matrix that is then used.

    The line search costs no waiting: each step evaluates one trial point of every system. Where the
    residual norm grew by more than `1 + growth / k²` (Li & Fukushima's summable allowance), the
    system stays where it was, learns from the trial all the same, and tries half the length.

    Attributes:
        memory: Number of stored updates. Storage grows with the updates made, up to this.
        kind: `"good"` or `"bad"`.
        line_search: Whether to reject trial points; without it every step is taken in full.
        growth: The relative growth of the residual norm allowed in the first step.

    Raises:
        ValueError: An option is out of range.

    Source: Broyden 1965 (both updates); Sherman & Morrison 1950 (the inverse form); Li &
    Fukushima 2000 (derivative-free line search, eq. 2.4).

    Example:
        >>> import torch, implicitly
        >>> solver = implicitly.Broyden()
        >>> z = implicitly.root(lambda z: z**3 - 8, torch.tensor(1.0), solver=solver).value
        >>> round(z.item(), 4)
        2.0
    """

    memory: int = 50
    kind: Literal["good", "bad"] = "good"
    line_search: bool = True
    growth: float = 1.0

    def __post_init__(self) -> None:
        if not is_integer(self.memory, 1):
            raise ValueError(f"memory must be an integer ≥ 1, got {self.memory!r}")
        if self.kind not in ("good", "bad"):
            raise ValueError(f"kind must be 'good' or 'bad', got {self.kind!r}")
        if not is_number(self.growth, 0):
            raise ValueError(f"growth must be a number ≥ 0, got {self.growth!r}")

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> BroydenState:
        batch, n = z.shape
        row = residual.unsqueeze(1)
        length = first_step_length(problem, z, residual)
        first_length = None if length is None else length.unsqueeze(2)
        left = z.new_zeros(batch, min(self.memory, _FIRST_CAPACITY), n)
        return BroydenState(
            z_row=z.unsqueeze(1),
            residual_row=row,
            size=torch.linalg.vector_norm(row, dim=2, keepdim=True),
            direction=row if first_length is None else first_length * row,
            length=z.new_ones(batch, 1, 1),
            left=left,
            right=torch.zeros_like(left),
            first_length=first_length,
            count=0,
        )

    def step(self, problem: Problem, state: BroydenState) -> BroydenState:
        state = self._make_room(state)
        s = state.length * state.direction
        trial = state.z_row + s
        residual = problem.residual(trial.squeeze(1)).unsqueeze(1)
        size = torch.linalg.vector_norm(residual, dim=2, keepdim=True)

        direction = state.negative(residual)
        negative_y = direction - state.direction
        column = s.mT
        if self.kind == "good":
            right = state.negative_transposed(s)
            denominator = torch.bmm(negative_y, column)
            scale = torch.bmm(s, column)
        else:
            right = residual - state.residual_row
            denominator = scale = torch.bmm(right, right.mT)
        # False for NaN as well: a trial that is not finite teaches nothing.
        usable = denominator.abs() > _SMALLEST_CURVATURE * scale
        if torch.is_grad_enabled():
            # What the graph of this step has read must not be written to.
            state = replace(state, left=state.left.clone(), right=state.right.clone())
        slot, count = state.count % self.memory, state.count + 1
        zero_row = state.left.narrow(1, slot, 1)
        left = torch.where(usable, (s + negative_y) / denominator, zero_row)
        if self.kind == "bad":
            right = torch.where(usable, right, zero_row)
        zero_row.copy_(left)
        state.right.narrow(1, slot, 1).copy_(right)

        length = state.length
        if self.line_search:
            accepted = size <= (1.0 + self.growth / count**2) * state.size
            size = torch.where(accepted, size, state.size)
            trial = torch.where(accepted, trial, state.z_row)
            residual = torch.where(accepted, residual, state.residual_row)
            direction = torch.where(accepted, direction, state.direction)
            length = (0.5 * length).masked_fill(accepted, 1.0)
        # H has changed by u vᵀ since the direction was computed; vᵀr = −sᵀHr for the good update.
        weight = (
            torch.bmm(direction, column) if self.kind == "good" else torch.bmm(residual, right.mT)
        )
        direction = direction.addcmul(left, weight, value=-1)
        return replace(
            state,
            z_row=trial,
            residual_row=residual,
            size=size,
            direction=direction,
            length=length,
            count=count,
        )

    def _make_room(self, state: BroydenState) -> BroydenState:
        """Storage for one more update, which may be shared with the state before."""
        left, right, direction = state.left, state.right, state.direction
        if state.count >= self.memory:
            slot = state.count % self.memory
            oldest_left, oldest_right = left.narrow(1, slot, 1), right.narrow(1, slot, 1)
            weight = torch.bmm(state.residual_row, oldest_right.mT)
            direction = direction.addcmul(oldest_left, weight)
            if torch.is_grad_enabled():
                left, right = left.clone(), right.clone()
            left[:, slot] = 0.0
            right[:, slot] = 0.0
        elif state.count == left.shape[1]:
            more = min(left.shape[1], self.memory - left.shape[1])
            left = torch.nn.functional.pad(left, (0, 0, 0, more))
            right = torch.nn.functional.pad(right, (0, 0, 0, more))
        else:
            return state
        return replace(state, direction=direction, left=left, right=right)
