"""The Neumann series of a linear equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...options.options import is_positive
from ..interface.plain import PlainSteps, Point
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import Solver


@dataclass
class NeumannState:
    """Partial sum and next term."""

    z: Tensor
    residual: Tensor
    """The next term of the series, which is also the residual of the partial sum."""
    end_status: Tensor | None = None
    """`STALLED` where terms shrink too slowly, if one is asked to notice."""


@dataclass(frozen=True)
class NeumannSeries(Solver):
    """`u = Σ Gᵏ c` for the linear equation `u = G u + c`, term by term.

    The series converges where the spectral radius of `G` is below one. For the adjoint of a fixed point
    `G` is `(∂f/∂z)ᵀ`; for a root it is `I − ∂F/∂z`.

    Attributes:
        below: End as stalled, for another solver to go on, where a term is larger than so many times the one
            before; `None` to go on while terms shrink at all.

    Raises:
        ValueError: `below` is not a positive number.

    Source: Neumann 1877; Lorraine, Vicol & Duvenaud 2020 (as an adjoint solver).

    Examples:
        >>> import torch, implicitly
        >>> solver = implicitly.NeumannSeries()
        >>> start = torch.tensor(0.0)
        >>> z = implicitly.fixed_point(lambda z: 0.5 * z + 1, start, solver=solver, linear=True).value
        >>> round(z.item(), 4)
        2.0
    """

    below: float | None = None
    needs: ClassVar[str] = "products"
    suits: ClassVar[str] = "contractions"
    linear_only: ClassVar[bool] = True
    confirm_residual: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 2000

    def __post_init__(self) -> None:
        if self.below is not None and not is_positive(self.below):
            raise ValueError(f"below must be a positive number or None, got {self.below!r}")

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> NeumannState:
        return NeumannState(z, residual)

    def plain_steps(self, problem: Problem, state: NeumannState) -> PlainSteps:
        def advance(z: Tensor, term: Tensor) -> Point:
            return z + term, term + problem.apply(term)

        def reached(before: Point, now: Point, _: int) -> NeumannState:
            return self._after(before[1], *now)

        return PlainSteps(advance, self.below, reached)

    def step(self, problem: Problem, state: NeumannState) -> NeumannState:
        term = state.residual
        return self._after(term, state.z + term, term + problem.apply(term))

    def _after(self, before: Tensor, z: Tensor, term: Tensor) -> NeumannState:
        """The state at a partial sum, after the term `before`."""
        if self.below is None:
            return NeumannState(z, term)
        norms = (torch.linalg.vector_norm(one, dim=1) for one in (term, before))
        slow = next(norms) > self.below * next(norms)
        return NeumannState(z, term, torch.where(slow, int(Status.STALLED), int(Status.RUNNING)))
