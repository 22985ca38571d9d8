"""Dense LU factorisation for linear equations of moderate size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..interface.problem import Problem
from ..interface.solver import Solver
from .dense import solve_dense
from .refinement import refinement_ends


@dataclass
class DenseState:
    """Iterate and matrices."""

    z: Tensor
    residual: Tensor
    matrix: Tensor
    end_status: Tensor


@dataclass(frozen=True)
class DenseLU(Solver):
    """Form the matrix of every system and solve with it; further steps are iterative refinement.

    It costs `n` products with the operator and `n²` numbers for each system. A singular matrix gets the
    least-squares solution of minimum norm, and the status `LINEAR_SOLVE_FAILED` if that does not solve
    the equation. A residual at rounding level that is above the tolerance has the status `STALLED`.

    Source: Higham 2002, chapters 9 and 12.

    Examples:
        >>> import torch, implicitly
        >>> matrix = torch.tensor([[4.0, 1.0], [2.0, 5.0]])
        >>> right = torch.tensor([6.0, 12.0])
        >>> solver = implicitly.DenseLU()
        >>> F = lambda z: matrix @ z - right
        >>> z = implicitly.root(F, torch.zeros(2), solver=solver, linear=True).value
        >>> [round(entry, 4) for entry in z.tolist()]
        [1.0, 2.0]
    """

    needs: ClassVar[str] = "dense matrices"
    suits: ClassVar[str] = "few unknowns"
    linear_only: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 10

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> DenseState:
        matrix = problem.linearization(z).jacobian(z)
        end_status = torch.zeros(z.shape[0], dtype=torch.int64, device=z.device)
        return DenseState(z, residual, matrix, end_status)

    def step(self, problem: Problem, state: DenseState) -> DenseState:
        z = state.z - solve_dense(state.matrix, state.residual)
        residual = problem.residual(z)
        before = torch.linalg.vector_norm(state.residual, dim=1)
        end_status = refinement_ends(before, residual, torch.linalg.matrix_norm(state.matrix), z)
        return DenseState(z, residual, state.matrix, end_status)
