"""One cycle of GMRES as operations of a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..interface.problem import Problem
from ..interface.traced import Part
from .method import Method

# Steps of a cycle, without `restart`: each of them copies the basis.
_CYCLE = 32


@dataclass
class GraphGMRESState:
    """Krylov basis and its least-squares problem; see `GMRESState`. Rows not in use are zero."""

    start: Tensor
    basis: Tensor
    triangle: Tensor
    rotations: Tensor
    first_norm: Tensor
    norm: Tensor
    count: Tensor
    taken: Tensor
    """Steps that each system has taken, `(batch,)`."""

    @property
    def z(self) -> Tensor:
        """The iterate at the start of the cycle: `finish` forms the one at its end."""
        return self.start


@dataclass(frozen=True)
class GraphGMRES(Method):
    """The steps of `GMRES` until the end of a cycle; rows of the basis are written by masks.

    Unused columns of the triangle are those of the identity, and do not enter.

    Source: Saad & Schultz 1986; Giraud, Langou & Rozložník 2005.
    """

    part: ClassVar[Part] = "operator"
    lazy: ClassVar[bool] = True

    def cycle(self, n: int) -> int:
        return max(min(n, self.solver.restart or _CYCLE), 1)

    def begin(
        self, problem: Problem, z: Tensor, residual: Tensor, length: Tensor
    ) -> GraphGMRESState:
        batch, n = z.shape
        steps = self.cycle(n)
        norm = torch.linalg.vector_norm(residual, dim=1)
        first = residual * _inverse(norm).unsqueeze(1)
        here = _place(steps + 1, torch.zeros((), dtype=torch.int64, device=z.device))
        zeros = z.new_zeros(batch, steps + 1, n)
        identity = torch.eye(steps + 1, dtype=z.dtype, device=z.device)
        return GraphGMRESState(
            start=z,
            basis=torch.where(here.reshape(1, -1, 1), first.unsqueeze(1), zeros),
            triangle=identity[:steps, :steps].expand(batch, steps, steps).clone(),
            rotations=identity.expand(batch, steps + 1, steps + 1).clone(),
            first_norm=norm,
            norm=norm.clone(),
            count=torch.zeros((), dtype=torch.int64, device=z.device),
            taken=torch.zeros_like(norm, dtype=torch.int64),
        )

    def advance(self, problem: Problem, state: GraphGMRESState) -> GraphGMRESState:
        basis, steps = state.basis, state.triangle.shape[1]
        here, following = _place(steps + 1, state.count), _place(steps + 1, state.count + 1)
        vector = torch.where(here.reshape(1, -1, 1), basis, 0.0).sum(dim=1)
        product = problem.apply(vector)
        size = torch.linalg.vector_norm(product, dim=1)
        column = torch.bmm(product.unsqueeze(1), basis.mT)
        rest = product.unsqueeze(1) - torch.bmm(column, basis)
        again = torch.bmm(rest, basis.mT)
        rest = (rest - torch.bmm(again, basis)).squeeze(1)
        column = column + again
        below = torch.linalg.vector_norm(rest, dim=1)
        negligible = 10 * torch.finfo(size.dtype).eps * size
        below = torch.where(below > negligible, below, 0.0)
        row = rest * _inverse(below).unsqueeze(1)

        rotated = torch.bmm(column, state.rotations.mT).squeeze(1)
        on = torch.where(here, rotated, 0.0).sum(dim=1)
        usable = on.abs() + below > negligible
        length = torch.hypot(torch.where(usable, on, 1.0), below)
        cosine = torch.where(usable, on / length, 0.0).unsqueeze(1)
        sine = torch.where(usable, below / length, 1.0).unsqueeze(1)
        upper = torch.where(here.reshape(1, -1, 1), state.rotations, 0.0).sum(dim=1)
        lower = torch.where(following.reshape(1, -1, 1), state.rotations, 0.0).sum(dim=1)
        upper, lower = cosine * upper + sine * lower, cosine * lower - sine * upper
        rotations = torch.where(here.reshape(1, -1, 1), upper.unsqueeze(1), state.rotations)
        rotations = torch.where(following.reshape(1, -1, 1), lower.unsqueeze(1), rotations)
        above = torch.arange(steps, device=here.device) < state.count
        new = torch.where(above, rotated[:, :steps], 0.0)
        new = torch.where(here[:steps], torch.where(usable, length, 1.0).unsqueeze(1), new)
        triangle = torch.where(here[:steps], new.unsqueeze(2), state.triangle)
        norm, taken = state.first_norm * lower[:, 0].abs(), state.taken + 1
        if problem.finished is not None:  # A system that has ended keeps its least-squares problem.
            ended = problem.finished
            triangle = torch.where(ended.unsqueeze(2), state.triangle, triangle)
            rotations = torch.where(ended.unsqueeze(2), state.rotations, rotations)
            norm = torch.where(ended.squeeze(1), state.norm, norm)
            taken = torch.where(ended.squeeze(1), state.taken, taken)
        basis = torch.where(following.reshape(1, -1, 1), row.unsqueeze(1), basis)
        return GraphGMRESState(
            state.start, basis, triangle, rotations, state.first_norm, norm, state.count + 1, taken
        )

    def finish(self, state: GraphGMRESState) -> Tensor:
        steps = state.triangle.shape[1]
        used = torch.arange(steps, device=state.taken.device) < state.taken.unsqueeze(1)
        right = state.first_norm.unsqueeze(1) * state.rotations[:, :steps, 0]
        right = torch.where(used, right, 0.0).unsqueeze(2)
        weights = torch.linalg.solve_ex(state.triangle, right).result
        return state.start - torch.bmm(weights.mT, state.basis[:, :steps]).squeeze(1)


def _place(count: int, index: Tensor) -> Tensor:
    return torch.arange(count, device=index.device) == index


def _inverse(norm: Tensor) -> Tensor:
    """`1 / norm`, and 0 for 0."""
    return torch.where(norm == 0, torch.inf, norm).reciprocal()
