"""Anderson acceleration, types I and II."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .options import is_integer, is_number, is_positive
from .problem import Problem
from .scale import first_step_length
from .solver import Solver


@dataclass
class AndersonState:
    """The iterate and the past moves. Rows are `(batch, 1, n)`, as batched products take them."""

    z: Tensor
    residual: Tensor
    residual_row: Tensor
    target: Tensor
    """`z + βr`, where a plain step would go, as rows."""
    changes: Tensor
    """Past changes `δr` of the residual, each divided by its norm, `(batch, memory, n)`."""
    shifts: Tensor
    """Past changes of the target, each divided by the norm of its `δr`, `(batch, memory, n)`."""
    ridge: Tensor
    """What is added to the Gram matrices, `(batch, memory, memory)`."""
    mixing: Tensor | None
    """`β` per system, `(batch, 1, 1)`, or `None` where it is the solver's option itself."""
    size: Tensor
    """Residual norms, `(batch, 1, 1)`."""
    count: int

    @property
    def norm(self) -> Tensor:
        """Residual norms, `(batch,)`."""
        return self.size.flatten()


@dataclass(frozen=True)
class Anderson(Solver):
    """Extrapolate from the last `memory` moves: `z ← z + βr − (ΔZ + βΔR) γ`.

    Type II takes the `γ` that minimises `‖r − ΔR γ‖`, type I solves `ΔZᵀ(r − ΔR γ) = 0`. Every past
    move is stored divided by the norm of its residual change. That leaves the extrapolation as it
    is and gives the Gram matrix a unit diagonal: the regularisation is relative, in an adjoint
    equation of size 1e-12 as in any other. A slot that is still empty is a zero row, to which the
    regularised equations give the weight zero.

    Attributes:
        memory: Number of past moves.
        mixing: `β`, the weight of the residual. For roots it is in units of a first step found by one
            product with the Jacobian, so that rescaling the equation changes nothing.
        kind: `"II"` or `"I"`.
        regularisation: Positive number added to the unit diagonal of the Gram matrix; `None` for
            16 units of rounding of the iterates' dtype.
        restart: Forget all moves every so many steps; `None` never.
        safeguard: Forget a system's moves, and take a plain step, when its residual norm has grown
            by more than this factor in a step; `None` never. With 1 it keeps up with plain iteration
            on strongly non-normal contractions too, but no longer solves maps that expand.

    Raises:
        ValueError: An option is out of range.

    Source: Anderson 1965; Walker & Ni 2011 (type II as least squares, eq. 2.1); Fang & Saad 2009
    (types I and II, eqs. 22–25).

    Example:
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

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> AndersonState:
        length = first_step_length(problem, z, residual)
        mixing = None if length is None else self.mixing * length.unsqueeze(2)
        changes = z.new_zeros(z.shape[0], self.memory, z.shape[1])
        row = residual.unsqueeze(1)
        size = torch.linalg.vector_norm(row, dim=2, keepdim=True)
        relative = self.regularisation
        if relative is None:
            relative = 16 * torch.finfo(z.dtype).eps
        unit = torch.eye(self.memory, dtype=z.dtype, device=z.device)
        return AndersonState(
            z=z,
            residual=residual,
            residual_row=row,
            target=self._target(z.unsqueeze(1), row, mixing),
            changes=changes,
            shifts=torch.zeros_like(changes),
            ridge=(relative * unit).expand(z.shape[0], -1, -1),
            mixing=mixing,
            size=size,
            count=0,
        )

    def step(self, problem: Problem, state: AndersonState) -> AndersonState:
        row = state.target
        if state.count > 0:
            row = torch.baddbmm(row, self._weights(state), state.shifts, alpha=-1)
        z = row.squeeze(1)
        return self._remember(state, row, z, problem.residual(z))

    def _target(self, z: Tensor, residual: Tensor, mixing: Tensor | None) -> Tensor:
        if mixing is None:
            return z.add(residual, alpha=self.mixing)
        return z.addcmul(mixing, residual)

    def _weights(self, state: AndersonState) -> Tensor:
        """`γ` as rows, `(batch, 1, memory)`, from the transposed equations."""
        if self.kind == "II":
            left = state.changes.mT
            gram = torch.baddbmm(state.ridge, state.changes, left)
        else:
            left = self._moves(state).mT
            gram = torch.bmm(state.changes, left)
            # Away from zero, on the side where the entry is.
            gram = gram + torch.where(gram < 0, -state.ridge, state.ridge)
        right = torch.bmm(state.residual_row, left)
        return torch.linalg.solve_ex(gram, right, left=False).result

    def _moves(self, state: AndersonState) -> Tensor:
        """`ΔZ` with rows of unit norm."""
        if state.mixing is None:
            moves = state.shifts.sub(state.changes, alpha=self.mixing)
        else:
            moves = state.shifts - state.mixing * state.changes
        return torch.nn.functional.normalize(moves, dim=2, eps=torch.finfo(moves.dtype).tiny)

    def _remember(
        self, state: AndersonState, z_row: Tensor, z: Tensor, residual: Tensor
    ) -> AndersonState:
        row = residual.unsqueeze(1)
        target = self._target(z_row, row, state.mixing)
        change = row - state.residual_row
        # A residual that did not change at all teaches nothing: a row of zeros, in derivatives too.
        length = torch.linalg.vector_norm(change, dim=2, keepdim=True)
        length = length.masked_fill(length == 0, torch.inf)

        changes, shifts = state.changes, state.shifts
        if torch.is_grad_enabled():
            changes, shifts = changes.clone(), shifts.clone()
        slot, count = state.count % self.memory, state.count + 1
        changes.narrow(1, slot, 1).copy_(change / length)
        shifts.narrow(1, slot, 1).copy_((target - state.target) / length)
        size = torch.linalg.vector_norm(row, dim=2, keepdim=True)
        if self.safeguard is not None:
            changes.mul_(size <= self.safeguard * state.size)
        if self.restart is not None and count % self.restart == 0:
            changes = torch.zeros_like(changes)
        return AndersonState(
            z, residual, row, target, changes, shifts, state.ridge, state.mixing, size, count
        )
