"""Options of a call that give derivatives with respect to the unknown, validated once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...options.options import check_callable
from ...solvers import (
    GMRES,
    Compiled,
    KnownPattern,
    NewtonKrylov,
    NumbaRoot,
    Polyalgorithm,
    ProjectedNewton,
    Solver,
    SparseLU,
)
from ...solvers.linear.preconditioned import Preconditioned

if TYPE_CHECKING:
    from ...solvers.linear.sparse_pattern import SparsePattern

Jacobian = Callable[..., Any]
Precondition = Callable[[Any], Any]


class WrongDerivativeError(ValueError):
    """A derivative that the caller gave is not that of the function, or has the wrong form."""


@dataclass(frozen=True, eq=False)
class GivenDerivatives:
    """The derivatives that a call was given; `root` documents them.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: A pattern is not square.
    """

    jacobian: Jacobian | None = None
    sparsity: Any = None
    preconditioner: Precondition | None = None

    def __post_init__(self) -> None:
        check_callable("jacobian", self.jacobian)
        check_callable("preconditioner", self.preconditioner)
        if self.sparsity is not None:
            _places(self.sparsity)

    @staticmethod
    def of(
        jacobian: Jacobian | None, sparsity: Any, preconditioner: Precondition | None
    ) -> GivenDerivatives | None:
        """The options in one; `None` if none of them is given."""
        if jacobian is None and sparsity is None and preconditioner is None:
            return None
        return GivenDerivatives(jacobian, sparsity, preconditioner)

    @cached_property
    def pattern(self) -> SparsePattern | None:
        """The pattern with its colouring."""
        if self.sparsity is None:
            return None
        # SciPy's sparse matrices and Numba are slow to import.
        from ...solvers.linear.sparse_pattern import SparsePattern

        n, rows, columns = _places(self.sparsity)
        return SparsePattern.of(n, rows, columns, transposed=True)

    def check_solver(self, solver: Solver) -> None:
        """Raise a `TypeError` if a solver cannot use what is given."""
        if isinstance(solver, (Compiled, NumbaRoot)):
            raise TypeError(
                f"{type(solver).__name__} compiles derivatives of its own: leave jacobian, sparsity and "
                "preconditioner out, or choose another solver"
            )
        if self.preconditioner is not None:
            self.adapted(solver, lambda v: v)

    def default_solver(self, linear: bool) -> Solver:
        """The solver that uses what is given, where the call has none."""
        if self.sparsity is not None and self.preconditioner is None:
            return SparseLU() if linear else NewtonKrylov(linear_solver=SparseLU())
        if linear:
            return GMRES()
        return Polyalgorithm() if self.preconditioner is None else NewtonKrylov()

    def adapted(self, solver: Solver, precondition: Callable[[Tensor], Tensor] | None) -> Solver:
        """`solver` with a preconditioner for flat tensors, and with the known pattern.

        Raises:
            TypeError: It takes no preconditioner, or has one already.
        """
        if isinstance(solver, NewtonKrylov):
            return replace(solver, linear_solver=self.adapted(solver.linear_solver, precondition))
        if isinstance(solver, (SparseLU, ProjectedNewton)) and precondition is None:
            pattern = self.pattern
            return solver if pattern is None else replace(solver, known=KnownPattern(pattern))
        if precondition is None:
            return solver
        if not isinstance(solver, Preconditioned):
            raise TypeError(
                "preconditioner needs a Krylov method, NewtonKrylov() with GMRES or BiCGStab, or one of "
                f"GMRES, BiCGStab and CG for a linear equation; got {solver!r}"
            )
        if solver.preconditioner is not None:
            raise TypeError(
                f"{type(solver).__name__} has a preconditioner already: give it there or to the call"
            )
        return replace(solver, preconditioner=precondition)


def _places(sparsity: Any) -> tuple[int, np.ndarray, np.ndarray]:
    """The size of a pattern, and the rows and columns of its entries."""
    if isinstance(sparsity, Tensor):
        shape, dense = tuple(sparsity.shape), sparsity.detach().to_dense().cpu().numpy()
        if len(shape) == 2 and sparsity.is_sparse:  # Stored zeros are places too.
            rows, columns = sparsity.detach().cpu().coalesce().indices().numpy()
        else:
            rows, columns = np.nonzero(dense) if dense.ndim == 2 else (dense, dense)
    elif hasattr(sparsity, "tocoo"):
        places = sparsity.tocoo()
        shape, (rows, columns) = tuple(places.shape), (places.row, places.col)
    elif isinstance(sparsity, np.ndarray) and sparsity.ndim == 2:
        shape = sparsity.shape
        rows, columns = np.nonzero(sparsity)
    else:
        raise TypeError(
            "sparsity must be a matrix with an entry wherever an equation has an unknown, as a sparse matrix "
            f"of SciPy or PyTorch, an array or a tensor; got {sparsity!r}"
        )
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(
            f"sparsity must be a square matrix, a row for each equation and a column for each unknown of a "
            f"system; got shape {shape}"
        )
    return shape[0], rows.astype(np.int64), columns.astype(np.int64)
