"""Anderson acceleration as operations of a graph: `Anderson` with a counter that is a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..fixed_point.anderson import EXPANSION, FLOOR
from ..interface.problem import Problem
from .definite import definite
from .method import Method

# Up to so many rows the equations are eliminated entry by entry: a call of LAPACK takes longer.
_MOST_UNROLLED = 9


@dataclass
class GraphAndersonState:
    """Iterate and past moves; see `AndersonState` and `Ring`."""

    z: Tensor
    residual: Tensor
    residuals: Tensor
    targets: Tensor
    weights: Tensor
    size: Tensor
    limit: Tensor
    plain: Tensor
    count: Tensor
    first: Tensor
    mixing: Tensor

    @property
    def norm(self) -> Tensor:
        """Residual norms, `(batch,)`."""
        return self.size.squeeze(1)


@dataclass(frozen=True)
class GraphAnderson(Method):
    """The steps of `Anderson`; rows of the ring are written by masks.

    Source: Walker & Ni 2011; Fang & Saad 2009.
    """

    def begin(
        self, problem: Problem, z: Tensor, residual: Tensor, length: Tensor
    ) -> GraphAndersonState:
        batch, n = z.shape
        slots = self.solver.memory + 1
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
        mixing = self.solver.mixing * length
        here = _place(slots, torch.zeros((), dtype=torch.int64, device=z.device))
        at = here.reshape(1, slots, 1)
        zeros = z.new_zeros(batch, slots, n)
        return GraphAndersonState(
            z=z,
            residual=residual,
            residuals=torch.where(at, residual.unsqueeze(1), zeros),
            targets=torch.where(at, (z + mixing * residual).unsqueeze(1), zeros),
            weights=z.new_zeros(batch, 1, slots),
            size=size,
            limit=torch.ones_like(size),
            plain=torch.ones_like(size, dtype=torch.bool),
            count=torch.zeros((), dtype=torch.int64, device=z.device),
            first=torch.where(size == 0, 1.0, size),
            mixing=mixing,
        )

    def advance(self, problem: Problem, state: GraphAndersonState) -> GraphAndersonState:
        solver, slots, count = self.solver, self.solver.memory + 1, state.count + 1
        z = torch.bmm(self._combination(state), state.targets).squeeze(1)
        residual = problem.residual(z)
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
        before, now = _place(slots, state.count % slots), _place(slots, count % slots)
        row = residual.unsqueeze(1)
        target = (z + state.mixing * residual).unsqueeze(1)
        residuals = _written(before, now, state.residuals, row)
        targets = _written(before, now, state.targets, target)
        length = (size * state.first).clamp_min(torch.finfo(z.dtype).tiny)
        weights = torch.where(before, length.reciprocal().unsqueeze(1), state.weights)
        weights = torch.where(now, 0.0, weights)
        limit, plain = state.limit, state.plain
        if solver.safeguard is not None:
            growth = size / state.size
            one = torch.ones_like(growth)
            found = torch.where(growth > EXPANSION, solver.safeguard * one, one)
            limit = torch.where(plain, found, limit)
            plain = growth > limit
            weights = torch.where(plain.unsqueeze(1), 0.0, weights)
        if solver.restart is not None:
            drops = count % solver.restart == 0
            weights = torch.where(drops, 0.0, weights)
            plain = plain | drops
        return GraphAndersonState(
            z, residual, residuals, targets, weights, size, limit, plain, count, state.first,
            state.mixing,
        )  # fmt: skip

    def _combination(self, state: GraphAndersonState) -> Tensor:
        """The weights of the rows in the next iterate; see `Anderson.combination`."""
        solver, rows, slots = self.solver, state.residuals, self.solver.memory + 1
        rounding = torch.finfo(rows.dtype)
        relative = 16 * rounding.eps if solver.regularisation is None else solver.regularisation
        identity = torch.eye(slots, dtype=rows.dtype, device=rows.device)
        here = _place(slots, state.count % slots)
        if solver.kind == "II" and self.unrolled and slots <= _MOST_UNROLLED:
            active = (state.weights.squeeze(1) > 0) & ~here
            gram = torch.bmm(rows, rows.mT)
            right = -torch.where(here.reshape(1, 1, slots), gram, 0.0).sum(dim=2)
            found = definite(gram, right, active, relative)
            return torch.where(here, 1.0, found).unsqueeze(1)
        if solver.kind == "II":
            gram = increase = torch.bmm(rows, rows.mT)
        else:
            moves = state.targets - state.mixing.unsqueeze(2) * rows
            unit = torch.nn.functional.normalize(moves, dim=2, eps=rounding.tiny)
            gram = torch.bmm(rows, unit.mT)
            size = torch.linalg.vector_norm(rows, dim=2, keepdim=True)
            increase = torch.where(gram < 0, -size, size)
        gram = gram + relative * identity * increase
        equations = FLOOR * identity + gram * state.weights
        # The row of the floor: a number that was rounded otherwise would not give the weight 1.
        right = (FLOOR * here.to(rows.dtype)).expand(rows.shape[0], 1, slots)
        return torch.linalg.solve_ex(equations, right, left=False).result


def _place(slots: int, index: Tensor) -> Tensor:
    """True in the slot `index`, `(slots,)`."""
    return torch.arange(slots, device=index.device) == index


def _written(before: Tensor, now: Tensor, rows: Tensor, row: Tensor) -> Tensor:
    """The ring with `row` in the slot `now`, and the change to it in the slot `before`."""
    changed = torch.where(before.reshape(1, -1, 1), rows - row, rows)
    return torch.where(now.reshape(1, -1, 1), row, changed)
