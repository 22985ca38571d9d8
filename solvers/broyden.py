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
    """`H = −t·I + Σ uᵢ vᵢᵀ` approximates the inverse Jacobian; `step = H r` at the accepted iterate."""

    z: Tensor
    residual: Tensor
    norm: Tensor
    step: Tensor
    length: Tensor
    """Line-search length of the next trial, `(batch, 1)`."""
    left: Tensor
    """`uᵢ` as rows, `(batch, capacity, n)`; unused rows are zero."""
    right: Tensor
    """`vᵢ` as rows, `(batch, capacity, n)`."""
    first_length: Tensor | None
    """`t`, `(batch, 1)`; `None` for 1."""
    count: int

    def inverse(self, r: Tensor) -> Tensor:
        """`H r`, `(batch, n)`."""
        return self._product(r, self.right, self.left)

    def inverse_transposed(self, r: Tensor) -> Tensor:
        """`Hᵀ r`, `(batch, n)`."""
        return self._product(r, self.left, self.right)

    def _product(self, r: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
        row = r.unsqueeze(1)
        coefficients = torch.bmm(row, inner.mT)
        if self.first_length is None:
            return torch.baddbmm(row, coefficients, outer, beta=-1).squeeze(1)
        return torch.bmm(coefficients, outer).squeeze(1) - self.first_length * r


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
        first_length = first_step_length(problem, z, residual)
        step = -residual if first_length is None else -first_length * residual
        left = z.new_zeros(batch, min(self.memory, _FIRST_CAPACITY), n)
        return BroydenState(
            z=z,
            residual=residual,
            norm=torch.linalg.vector_norm(residual, dim=1),
            step=step,
            length=z.new_ones(batch, 1),
            left=left,
            right=torch.zeros_like(left),
            first_length=first_length,
            count=0,
        )

    def step(self, problem: Problem, state: BroydenState) -> BroydenState:
        state = self._make_room(state)
        s = -state.length * state.step
        trial = state.z + s
        residual = problem.residual(trial)
        norm = torch.linalg.vector_norm(residual, dim=1)

        step = state.inverse(residual)
        inverse_y = step - state.step
        correction = s - inverse_y
        if self.kind == "good":
            right = state.inverse_transposed(s)
            denominator = (s * inverse_y).sum(dim=1, keepdim=True)
            scale = (s * s).sum(dim=1, keepdim=True)
        else:
            right = residual - state.residual
            denominator = scale = (right * right).sum(dim=1, keepdim=True)
        # False for NaN as well: a trial that is not finite teaches nothing.
        usable = denominator.abs() > _SMALLEST_CURVATURE * scale
        left = torch.where(usable, correction / denominator, 0.0)
        if self.kind == "bad":
            right = torch.where(usable, right, 0.0)
        slot = state.count % self.memory
        if torch.is_grad_enabled():
            # What the graph of this step has read must not be written to.
            state = replace(state, left=state.left.clone(), right=state.right.clone())
        state.left.select(1, slot).copy_(left)
        state.right.select(1, slot).copy_(right)
        count = state.count + 1

        if not self.line_search:
            step = step + left * (right * residual).sum(dim=1, keepdim=True)
            return BroydenState(
                trial,
                residual,
                norm,
                step,
                state.length,
                state.left,
                state.right,
                state.first_length,
                count,
            )
        accepted = norm <= (1.0 + self.growth / count**2) * state.norm
        norm = torch.where(accepted, norm, state.norm)
        accepted = accepted.unsqueeze(1)
        z = torch.where(accepted, trial, state.z)
        residual = torch.where(accepted, residual, state.residual)
        step = torch.where(accepted, step, state.step)
        step = step.addcmul(left, (right * residual).sum(dim=1, keepdim=True))
        length = torch.where(accepted, 1.0, 0.5 * state.length)
        return BroydenState(
            z, residual, norm, step, length, state.left, state.right, state.first_length, count
        )

    def _make_room(self, state: BroydenState) -> BroydenState:
        """Storage for one more update, which may be shared with the state before."""
        left, right, step = state.left, state.right, state.step
        if state.count >= self.memory:
            slot = state.count % self.memory
            oldest = left[:, slot] * (right[:, slot] * state.residual).sum(dim=1, keepdim=True)
            step = step - oldest
            if torch.is_grad_enabled():
                left, right = left.clone(), right.clone()
            left[:, slot] = 0.0
            right[:, slot] = 0.0
        elif state.count == left.shape[1]:
            more = min(left.shape[1], self.memory - left.shape[1])
            left = torch.nn.functional.pad(left, (0, 0, 0, more))
            right = torch.nn.functional.pad(right, (0, 0, 0, more))
        return BroydenState(
            state.z,
            state.residual,
            state.norm,
            step,
            state.length,
            left,
            right,
            state.first_length,
            state.count,
        )
