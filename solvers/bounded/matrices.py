"""Jacobians of steps within bounds, dense or sparse, by the few operations that the steps need.

Up to 2048 unknowns they are dense, unless their pattern is given. Of more, their entries are found from
products, as `SparseLU` finds them; rows of unknowns on a bound become those of the identity, which the
pattern therefore contains.

Source: Curtis, Powell & Reid 1974 (entries from products); Bertsekas 1982 (equations of fixed unknowns are
left out of a step).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ...options.libraries import needs
from ..interface.problem import Linearization, Problem
from ..linear.dense import solve_dense
from ..linear.rows import product
from ..linear.sparse_lu import KnownPattern, SparseMatrices, sparse_matrices

if TYPE_CHECKING:
    from ..linear.sparse_pattern import SparsePattern

# Dense matrices beyond take seconds for a step.
MOST_DENSE = 2048


class Matrices(Protocol):
    """The Jacobians of a batch; all vectors are `(batch, n)`."""

    def diagonal(self) -> Tensor:
        """The diagonals."""
        ...

    def sums(self, columns: Tensor) -> Tensor:
        """`Σ_j |A_ij| c_j`."""
        ...

    def largest(self, columns: Tensor) -> Tensor:
        """`max_j |A_ij| c_j`."""
        ...

    def lengths(self) -> Tensor:
        """The 2-norms of the columns."""
        ...

    def turned(self, v: Tensor) -> Tensor:
        """`Aᵀ v`."""
        ...

    def scaled(self, rows: Tensor, columns: Tensor | None = None) -> Matrices:
        """The matrices with rows and columns multiplied."""
        ...

    def or_identity(self, which: Tensor) -> Matrices:
        """The matrices with the rows `which` of the identity."""
        ...

    def solve(self, right: Tensor) -> Tensor:
        """`A⁻¹ b`; not finite where there is none."""
        ...

    def solve_without(self, stays: Tensor, right: Tensor) -> Tensor:
        """The solution for all unknowns but those that stay where they are, which get zeros."""
        ...

    def damped(self, root: Tensor, bent: Tensor) -> Callable[[float, Tensor], Tensor]:
        """Gives `(N + δ m I)⁻¹ b` for `N = √D Aᵀ A √D + diag(bent)`, `m` its largest diagonal entry."""
        ...


def matrices_of(
    problem: Problem, linearization: Linearization, z: Tensor, known: KnownPattern
) -> Matrices:
    """The Jacobians of `F`, whose residual is `−F`, at a point."""
    if z.shape[1] <= MOST_DENSE and known.pattern is None:
        return Dense(-linearization.jacobian(z))
    linear = Problem(
        function=lambda v: -linearization.jvp(v),
        form="root",
        operator=lambda v: -linearization.jvp(v),
        transpose=lambda u: -linearization.vjp(u),
        precision=problem.precision,
    )
    found = sparse_matrices(linear, z, known)
    if found is None:
        return _missing(z)
    # The residual of that problem is the Jacobian of the residual, `−F`.
    return Sparse(found.pattern, -found.entries, z).with_diagonal


@dataclass(frozen=True)
class Dense:
    """Dense matrices, `(batch, n, n)`."""

    entries: Tensor

    def diagonal(self) -> Tensor:
        return torch.diagonal(self.entries, dim1=1, dim2=2)

    def sums(self, columns: Tensor) -> Tensor:
        return product(self.entries.abs(), columns)

    def largest(self, columns: Tensor) -> Tensor:
        return (self.entries.abs() * columns.unsqueeze(1)).amax(dim=2)

    def lengths(self) -> Tensor:
        return torch.linalg.vector_norm(self.entries, dim=1)

    def turned(self, v: Tensor) -> Tensor:
        return product(self.entries.mT, v)

    def scaled(self, rows: Tensor, columns: Tensor | None = None) -> Dense:
        found = rows.unsqueeze(2) * self.entries
        return Dense(found if columns is None else found * columns.unsqueeze(1))

    def or_identity(self, which: Tensor) -> Dense:
        identity = torch.diag_embed(torch.ones_like(self.diagonal()))
        return Dense(torch.where(which.unsqueeze(2), identity, self.entries))

    def solve(self, right: Tensor) -> Tensor:
        # In twice the digits where there are more: rows and columns have many scales.
        return solve_dense(self.entries.double(), right.double())

    def solve_without(self, stays: Tensor, right: Tensor) -> Tensor:
        matrix = torch.where(stays.unsqueeze(1), 0.0, self.entries.double())
        return torch.where(stays, 0.0, solve_dense(matrix, right.double()))

    def damped(self, root: Tensor, bent: Tensor) -> Callable[[float, Tensor], Tensor]:
        scaled = self.entries * root.unsqueeze(1)
        matrix = scaled.mT @ scaled + torch.diag_embed(bent)
        usable = torch.isfinite(matrix).all(dim=(1, 2), keepdim=True)
        matrix = torch.where(usable, matrix, 0.0)
        largest = _positive(torch.diagonal(matrix, dim1=1, dim2=2).amax(dim=1, keepdim=True))

        def solve(damping: float, right: Tensor) -> Tensor:
            added = torch.diag_embed((damping * largest).expand_as(root))
            return solve_dense(matrix + added, right)

        return solve


@dataclass(frozen=True)
class Sparse:
    """Sparse matrices of one pattern.

    Attributes:
        pattern: The pattern.
        entries: `(batch, entries)`.
        like: A tensor of the shape, dtype and device of the vectors.
    """

    pattern: SparsePattern
    entries: np.ndarray
    like: Tensor

    @cached_property
    def with_diagonal(self) -> Sparse:
        """The same matrices, with places for the whole diagonal."""
        from ..linear.sparse_pattern import SparsePattern

        pattern, every = self.pattern, np.arange(self.pattern.n)
        places = np.append(pattern.rows, every), np.append(pattern.columns, every)
        wider = SparsePattern.of(pattern.n, *places, transposed=True)
        entries = np.zeros((len(self.entries), len(wider.rows)), dtype=self.entries.dtype)
        key = wider.rows * pattern.n + wider.columns
        there = np.searchsorted(key, pattern.rows * pattern.n + pattern.columns)
        entries[:, there] = self.entries
        return Sparse(wider, entries, self.like)

    def diagonal(self) -> Tensor:
        return self._tensor(self.entries[:, self.pattern.rows == self.pattern.columns])

    def sums(self, columns: Tensor) -> Tensor:
        return self._added(self.pattern.rows, np.abs(self._across(columns)))

    def largest(self, columns: Tensor) -> Tensor:
        # Every row has a place for its diagonal.
        starts = np.searchsorted(self.pattern.rows, np.arange(self.pattern.n))
        return self._tensor(np.maximum.reduceat(np.abs(self._across(columns)), starts, axis=1))

    def lengths(self) -> Tensor:
        return self._added(self.pattern.columns, self.entries**2).sqrt()

    def turned(self, v: Tensor) -> Tensor:
        return self._added(self.pattern.columns, self.entries * _numpy(v)[:, self.pattern.rows])

    def scaled(self, rows: Tensor, columns: Tensor | None = None) -> Sparse:
        entries = self.entries if columns is None else self._across(columns)
        return replace(self, entries=entries * _numpy(rows)[:, self.pattern.rows])

    def or_identity(self, which: Tensor) -> Sparse:
        pattern = self.pattern
        identity = (pattern.rows == pattern.columns).astype(self.entries.dtype)
        return replace(
            self, entries=np.where(_numpy(which)[:, pattern.rows], identity, self.entries)
        )

    def solve(self, right: Tensor) -> Tensor:
        matrices, found = SparseMatrices(self.pattern, self.entries), _numpy(right.double())
        usable = np.isfinite(self.entries).all(axis=1) & np.isfinite(found).all(axis=1)
        solved = [
            matrices.solve(i, one) if usable[i] else np.full_like(one, np.nan)
            for i, one in enumerate(found)
        ]
        return self._tensor(np.stack(solved)).to(right)

    def solve_without(self, stays: Tensor, right: Tensor) -> Tensor:
        return self.or_identity(stays).solve(torch.where(stays, 0.0, right))

    def damped(self, root: Tensor, bent: Tensor) -> Callable[[float, Tensor], Tensor]:
        with needs("scipy", "ProjectedNewton with sparse Jacobians"):
            from scipy import sparse
            from scipy.sparse.linalg import splu

        entries, normal = self._across(root), []
        for one, diagonal in zip(np.nan_to_num(entries), _numpy(bent), strict=True):
            matrix = self.pattern.matrix(one)
            normal.append((matrix.T @ matrix + sparse.diags_array(diagonal)).tocsc())

        def solve(damping: float, right: Tensor) -> Tensor:
            found = []
            for matrix, one in zip(normal, _numpy(right), strict=True):
                largest = float(matrix.diagonal().max(initial=0.0)) or 1.0
                added = sparse.identity(len(one), format="csc") * (damping * largest)
                try:
                    found.append(splu((matrix + added).tocsc()).solve(one))
                except RuntimeError:  # A pivot of zero: a stronger damping has none.
                    found.append(np.full_like(one, np.nan))
            return self._tensor(np.stack(found))

        return solve

    def _across(self, columns: Tensor) -> np.ndarray:
        scaled: np.ndarray = self.entries * _numpy(columns)[:, self.pattern.columns]
        return scaled

    def _added(self, lines: np.ndarray, entries: np.ndarray) -> Tensor:
        return self._tensor(np.stack([np.bincount(lines, one, self.pattern.n) for one in entries]))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.like)


def _missing(z: Tensor) -> Sparse:
    """Matrices of NaN, with which no step can be taken: they are too full to be found, or not finite."""
    from ..linear.sparse_pattern import SparsePattern

    places = np.arange(z.shape[1])
    entries = np.full(tuple(z.shape), np.nan, dtype=_numpy(z).dtype)
    return Sparse(SparsePattern.of(z.shape[1], places, places), entries, z)


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array


def _positive(size: Tensor) -> Tensor:
    return torch.where(size > 0, size, 1.0)
