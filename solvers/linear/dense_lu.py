"""Dense LU factorisation for linear equations of moderate size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..interface.problem import Problem
from ..interface.solver import Solver
from .dense import solve_dense, units
from .refinement import refinement_ends


@dataclass
class DenseState:
    """Iterate and matrices, whose rows and columns are in units of their own; `size` is the norm without."""

    z: Tensor
    residual: Tensor
    end_status: Tensor
    size: Tensor
    scaled: Tensor
    rows: Tensor
    columns: Tensor


@dataclass(frozen=True)
class DenseLU(Solver):
    """Form the matrix of every system and solve with it; further steps are iterative refinement.

    It costs `n` products with the operator and `n²` numbers for each system. A singular matrix gets the
    least-squares solution of minimum norm, and the status `LINEAR_SOLVE_FAILED` if that does not solve
    the equation. A residual at rounding level that is above the tolerance has the status `STALLED`. Where
    the largest entries of rows or columns differ by more than a thousand, each is divided by a power of two
    first, so that unknowns and equations may have any units.

    Source: Higham 2002, chapters 9 and 12; Golub & Van Loan 2013, section 3.5.2 (units).

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
    suits: ClassVar[str] = "few unknowns, in any units; the default adjoint of small systems"
    linear_only: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 10

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> DenseState:
        matrix = problem.linearization(z).jacobian(z)
        end_status = torch.zeros(z.shape[0], dtype=torch.int64, device=z.device)
        rows, columns = units(matrix)
        scaled = rows.unsqueeze(2) * matrix * columns.unsqueeze(1)
        size = torch.linalg.matrix_norm(matrix)
        return DenseState(z, residual, end_status, size, scaled, rows, columns)

    def step(self, problem: Problem, state: DenseState) -> DenseState:
        move = state.columns * solve_dense(state.scaled, state.rows * state.residual)
        z = state.z - move
        residual = problem.residual(z)
        before = torch.linalg.vector_norm(state.residual, dim=1)
        end_status = refinement_ends(before, residual, state.size, z)
        return replace(state, z=z, residual=residual, end_status=end_status)
