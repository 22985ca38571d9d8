"""The Neumann series of a linear equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..interface.problem import Problem
from ..interface.solver import Solver


@dataclass
class NeumannState:
    """Partial sum and next term."""

    z: Tensor
    residual: Tensor
    """The next term of the series, which is also the residual of the partial sum."""


@dataclass(frozen=True)
class NeumannSeries(Solver):
    """`u = Σ Gᵏ c` for the linear equation `u = G u + c`, term by term.

    The series converges where the spectral radius of `G` is below one. For the adjoint of a fixed point
    `G` is `(∂f/∂z)ᵀ`; for a root it is `I − ∂F/∂z`.

    Source: Neumann 1877; Lorraine, Vicol & Duvenaud 2020 (as an adjoint solver).

    Examples:
        >>> import torch, implicitly
        >>> solver = implicitly.NeumannSeries()
        >>> start = torch.tensor(0.0)
        >>> z = implicitly.fixed_point(lambda z: 0.5 * z + 1, start, solver=solver, linear=True).value
        >>> round(z.item(), 4)
        2.0
    """

    needs: ClassVar[str] = "products"
    suits: ClassVar[str] = "contractions"
    linear_only: ClassVar[bool] = True
    confirm_residual: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 2000

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> NeumannState:
        return NeumannState(z, residual)

    def step(self, problem: Problem, state: NeumannState) -> NeumannState:
        term = state.residual
        return NeumannState(state.z + term, term + problem.apply(term))
