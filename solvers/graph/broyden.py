"""Broyden's methods as operations of a graph: `Broyden` with restarts in place of reductions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..interface.problem import Problem
from ..quasi_newton.broyden import SMALLEST_CURVATURE
from .method import Method

# Updates that are stored: each step of a graph copies them.
_MOST_UPDATES = 24


@dataclass
class GraphBroydenState:
    """`H = Σ uᵢ vᵢᵀ − t·I`; see `BroydenState`. Rows not in use are zero."""

    z: Tensor
    residual: Tensor
    size: Tensor
    direction: Tensor
    length: Tensor
    left: Tensor
    right: Tensor
    first_length: Tensor
    count: Tensor

    @property
    def norm(self) -> Tensor:
        """Residual norms, `(batch,)`."""
        return self.size.squeeze(1)


@dataclass(frozen=True)
class GraphBroyden(Method):
    """The steps of `Broyden`; where its memory is full, all updates are dropped.

    Source: Broyden 1965; Li & Fukushima 2000, eq. 2.4; Kelley 1995, section 7.3 (restarts).
    """

    @property
    def _memory(self) -> int:
        return min(self.solver.memory, _MOST_UPDATES)

    def begin(
        self, problem: Problem, z: Tensor, residual: Tensor, length: Tensor
    ) -> GraphBroydenState:
        batch, n = z.shape
        return GraphBroydenState(
            z=z,
            residual=residual,
            size=torch.linalg.vector_norm(residual, dim=1, keepdim=True),
            direction=length * residual,
            length=z.new_ones(batch, 1),
            left=z.new_zeros(batch, self._memory, n),
            right=z.new_zeros(batch, self._memory, n),
            first_length=length,
            count=torch.zeros((), dtype=torch.int64, device=z.device),
        )

    def advance(self, problem: Problem, state: GraphBroydenState) -> GraphBroydenState:
        place, count = state.count % self._memory, state.count + 1
        full = (place == 0) & (state.count > 0)
        left = torch.where(full, 0.0, state.left)
        right = torch.where(full, 0.0, state.right)
        kept = torch.where(full, state.first_length * state.residual, state.direction)
        s = state.length * kept
        trial = state.z + s
        residual = problem.residual(trial)
        size = torch.linalg.vector_norm(residual, dim=1, keepdim=True)

        direction = _negative(state.first_length, residual, right, left)
        negative_y = direction - kept
        if self.solver.kind == "good":
            v = _negative(state.first_length, s, left, right)
            denominator, scale = _dot(negative_y, s), _dot(s, s)
        else:
            v = residual - state.residual
            denominator = scale = _dot(v, v)
        singular = denominator.abs() <= SMALLEST_CURVATURE * scale
        u = ((s + negative_y) / torch.where(singular, torch.inf, denominator)).nan_to_num(
            0.0, 0.0, 0.0
        )
        if self.solver.kind == "bad":
            v = v.nan_to_num(0.0, 0.0, 0.0)
        length = state.length
        if self.solver.line_search:
            allowed = 1.0 + self.solver.growth / count.to(size.dtype) ** 2
            accepted = size <= allowed * state.size
            size = torch.where(accepted, size, state.size)
            trial = torch.where(accepted, trial, state.z)
            residual = torch.where(accepted, residual, state.residual)
            direction = torch.where(accepted, direction, kept)
            length = torch.where(accepted, 1.0, 0.5 * length)
        weight = _dot(direction, s) if self.solver.kind == "good" else _dot(residual, v)
        here = (torch.arange(self._memory, device=place.device) == place).reshape(1, -1, 1)
        return GraphBroydenState(
            z=trial,
            residual=residual,
            size=size,
            direction=direction - weight * u,
            length=length,
            left=torch.where(here, u.unsqueeze(1), left),
            right=torch.where(here, v.unsqueeze(1), right),
            first_length=state.first_length,
            count=count,
        )


def _negative(first_length: Tensor, row: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
    """`−H r` with `inner` the `vᵢ` and `outer` the `uᵢ`; `−Hᵀ r` the other way round."""
    coefficients = torch.bmm(row.unsqueeze(1), inner.mT)
    return first_length * row - torch.bmm(coefficients, outer).squeeze(1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True)
