"""Jacobians of a curve's equation, and linear systems of them with one more row.

Along a curve `F(w) = 0`, `w = (z, λ)`, the matrix of every linear system is

    M = ( F_z  F_λ )
        ( row      )

with the Jacobian of `F` and a row that is not orthogonal to the curve. `M` is regular at folds, where `F_z`
is singular, and singular at branch points, where its determinant changes its sign. Few unknowns have dense
matrices. Of many, `F_z` is a sparse matrix found from products, and `M` is factored as a whole: no block is
eliminated, since `F_z` is nearly singular where it matters.

Source: Keller 1977; Govaerts 2000, chapter 3 (bordered matrices).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...options.libraries import needs
from ..equations.differentiation import matrix, pullback, transposed
from .equation import CurveEquation

# A pivot below this many roundings of the largest makes a matrix singular.
_PIVOT_UNITS = 16
# A pattern that takes more products than this part of the unknowns is not sparse.
_SPARSE_PART = 0.25
# A dense row and column come last, and pivots on the diagonal are kept where they are not too small: else
# the factors of a sparse matrix with a border are dense.
_ORDERED: dict[str, Any] = {
    "permc_spec": "MMD_AT_PLUS_A",
    "diag_pivot_thresh": 0.1,
    "options": {"SymmetricMode": True},
}
# Up to so many unknowns, the parameter included, products one by one take less time than together.
_FEW = 4


class Factors(Protocol):
    """Factors of a bordered matrix."""

    @property
    def sign(self) -> int:
        """The sign of the determinant; 0 where a pivot is at the level of rounding."""
        ...

    def solve(self, right: Tensor) -> Tensor:
        """`M⁻¹ b`, `(n + 1,)`; not finite where `M` is exactly singular."""
        ...

    def transposed(self, right: Tensor) -> Tensor:
        """`M⁻ᵀ b`."""
        ...


class Jacobian(Protocol):
    """The Jacobian `(F_z, F_λ)` at a point, `n × (n + 1)`."""

    def bordered(self, rows: Tensor, scales: Tensor, columns: Tensor | None = None) -> Factors:
        """Factors of the matrix with `rows`, `(k, n + 1)`, below, and `columns`, `(n, k − 1)`, beside.

        Each column is factored times its entry of `scales`, `(n + 1,)`, and each row of the Jacobian in its
        own unit, so that pivots do not depend on units.
        """
        ...

    @property
    def norms(self) -> tuple[float, float]:
        """The Frobenius norms of `F_z` and of `F_λ`."""
        ...


class Linearize(Protocol):
    """Gives the value of `F` at `w` and its Jacobian there."""

    def __call__(self, w: Tensor) -> tuple[Tensor, Jacobian]: ...


@dataclass(frozen=True)
class ScaledFactors:
    """Factors of a matrix from those of the one whose first rows and columns are scaled."""

    scaled: Factors
    rows: Tensor
    columns: Tensor

    @property
    def sign(self) -> int:
        return self.scaled.sign

    def solve(self, right: Tensor) -> Tensor:
        return _times(self.columns, self.scaled.solve(_times(self.rows, right)))

    def transposed(self, right: Tensor) -> Tensor:
        return _times(self.rows, self.scaled.transposed(_times(self.columns, right)))


def _times(scales: Tensor, vector: Tensor) -> Tensor:
    """The first entries times their scales."""
    return torch.cat((vector[: len(scales)] * scales, vector[len(scales) :]))


def _units(sizes: Tensor) -> Tensor:
    """Reciprocals of sizes, one where a size is zero or not finite."""
    inverse = sizes.reciprocal()
    return torch.where(torch.isfinite(inverse) & (sizes > 0), inverse, 1.0)


@dataclass(frozen=True)
class DenseJacobian:
    """A dense Jacobian, `(n, n + 1)`."""

    entries: Tensor

    def bordered(self, rows: Tensor, scales: Tensor, columns: Tensor | None = None) -> Factors:
        scaled = self.entries * scales
        units = _units(scaled.abs().amax(dim=1))
        whole = torch.cat((scaled * units.unsqueeze(1), rows * scales))
        if columns is not None:
            corner = rows.new_zeros(len(rows), columns.shape[1])
            beside = torch.cat((columns * units.unsqueeze(1), corner))
            whole = torch.cat((whole, beside), dim=1)
        lu, pivots, _ = torch.linalg.lu_factor_ex(whole)
        return ScaledFactors(DenseFactors(lu, pivots), units, scales)

    @property
    def norms(self) -> tuple[float, float]:
        lengths = torch.linalg.vector_norm(self.entries, dim=0)
        return float(torch.linalg.vector_norm(lengths[:-1])), float(lengths[-1])


@dataclass(frozen=True)
class DenseFactors:
    """LU factors of a dense bordered matrix."""

    lu: Tensor
    pivots: Tensor

    @property
    def sign(self) -> int:
        diagonal = self.lu.diagonal()
        order = torch.arange(1, len(diagonal) + 1, device=self.pivots.device)
        exchanges = int((self.pivots != order).sum())
        return _sign(diagonal.cpu().numpy(), exchanges)

    def solve(self, right: Tensor) -> Tensor:
        return torch.linalg.lu_solve(self.lu, self.pivots, right.unsqueeze(1)).squeeze(1)

    def transposed(self, right: Tensor) -> Tensor:
        solved = torch.linalg.lu_solve(self.lu, self.pivots, right.unsqueeze(1), adjoint=True)
        return solved.squeeze(1)


@dataclass(frozen=True)
class DenseLinearize:
    """Dense Jacobians, by batched products with unit vectors."""

    equation: CurveEquation

    def __call__(self, w: Tensor) -> tuple[Tensor, Jacobian]:
        if len(w) <= _FEW:
            return self._row_by_row(w)

        # A last row of zeros makes the map square.
        def square(points: Tensor) -> tuple[Tensor]:
            (point,) = points
            return (torch.cat((self.equation.at(point), point.new_zeros(1))).unsqueeze(0),)

        (value,), back = pullback(square, (w.unsqueeze(0),))
        (columns,) = matrix(lambda u: back((u,))[0], w.unsqueeze(0))
        return value.detach()[0, :-1], DenseJacobian(columns.mT[:-1])

    def _row_by_row(self, w: Tensor) -> tuple[Tensor, Jacobian]:
        (value,), back = pullback(lambda w: (self.equation.at(w),), (w,))
        units = torch.eye(len(value), dtype=w.dtype, device=w.device)
        return value.detach(), DenseJacobian(torch.stack([back((unit,))[0] for unit in units]))


@dataclass(frozen=True)
class SparseJacobian:
    """A sparse `F_z` of SciPy and a dense column `F_λ`."""

    entries: Any
    column: np.ndarray

    def bordered(self, rows: Tensor, scales: Tensor, columns: Tensor | None = None) -> Factors:
        with needs("scipy", "a curve with sparse Jacobians"):
            from scipy import sparse
            from scipy.sparse.linalg import splu

        below, factors = (rows * scales).cpu().numpy(), scales.cpu().numpy()
        scaled = sparse.hstack((self.entries, self.column[:, None])) @ sparse.diags(factors)
        units = _units(torch.from_numpy(abs(scaled).max(axis=1).toarray().reshape(-1))).to(rows)
        across = sparse.diags(units.cpu().numpy())
        blocks = [[across @ scaled], [below]]
        if columns is not None:
            blocks[0].append(across @ columns.cpu().numpy())
            blocks[1].append(np.zeros((len(below), columns.shape[1]), dtype=below.dtype))
        whole = sparse.bmat(blocks, format="csc")
        try:
            found = SparseFactors(splu(whole, **_ORDERED))
        except RuntimeError:  # SuperLU raises it for a pivot that is zero.
            found = SparseFactors(None)
        return ScaledFactors(found, units, scales)

    @property
    def norms(self) -> tuple[float, float]:
        return float(np.linalg.norm(self.entries.data)), float(np.linalg.norm(self.column))


@dataclass(frozen=True)
class SparseFactors:
    """Factors of SuperLU; `None` where a pivot is zero."""

    factors: Any

    @property
    def sign(self) -> int:
        if self.factors is None:
            return 0
        exchanges = _exchanges(self.factors.perm_r) + _exchanges(self.factors.perm_c)
        return _sign(self.factors.U.diagonal(), exchanges)

    def solve(self, right: Tensor) -> Tensor:
        return self._solved(right, "N")

    def transposed(self, right: Tensor) -> Tensor:
        return self._solved(right, "T")

    def _solved(self, right: Tensor, way: str) -> Tensor:
        if self.factors is None:
            return torch.full_like(right, torch.nan)
        solved = self.factors.solve(right.detach().cpu().numpy(), trans=way)
        return torch.from_numpy(solved).to(right)


class SparseLinearize:
    """Sparse Jacobians, whose pattern is found once from products and examined at every point.

    A Jacobian that turns out to be full is dense from then on.
    """

    def __init__(self, equation: CurveEquation, pattern: Any = None) -> None:
        self._equation, self.pattern = equation, pattern
        self._dense: DenseLinearize | None = None

    def __call__(self, w: Tensor) -> tuple[Tensor, Jacobian]:
        from ...solvers.linear.pattern_search import find_pattern
        from ...solvers.linear.sparse_pattern import noise_level, probe_vector

        if self._dense is not None:
            return self._dense(w)
        (value,), back = pullback(lambda w: (self._equation.at(w),), (w,))
        forward = transposed(back, (value,))
        n, dtype = len(w) - 1, w.new_empty(0, device="cpu").numpy().dtype

        def product(vector: np.ndarray, last: float = 0.0) -> np.ndarray:
            tangent = torch.cat((torch.from_numpy(vector).to(w), w.new_tensor([last])))
            (moved,) = forward((tangent,))
            found: np.ndarray = moved.detach().cpu().numpy()[None]
            return found

        def turned(vector: np.ndarray) -> np.ndarray:
            (moved,) = back((torch.from_numpy(vector).to(w),))
            found: np.ndarray = moved.detach().cpu().numpy()[None, :n]
            return found

        noise, probe = noise_level(self._equation.eps), probe_vector(n, dtype)
        pattern = self.pattern
        entries = None if pattern is None else pattern.entries(product, dtype, turned)
        if entries is None or not pattern.explains(entries, probe, product(probe), noise):
            pattern = self.pattern = find_pattern(product, n, dtype, noise, turned)
            if pattern is None:
                raise ValueError(
                    f"the Jacobian of {self._equation.described}, with {n} unknowns, is neither sparse "
                    "enough to be found from products nor finite: give sparsity=, or fewer unknowns"
                )
            if pattern.products > _SPARSE_PART * n:
                self._dense = DenseLinearize(self._equation)
                return self._dense(w)
            entries = pattern.entries(product, dtype, turned)
        (column,) = product(np.zeros(n, dtype=dtype), 1.0)
        return value.detach(), SparseJacobian(pattern.matrix(entries[0]), column)


def _exchanges(order: np.ndarray) -> int:
    """The parity of a permutation: its length less the number of its cycles."""
    seen, cycles = np.zeros(len(order), dtype=bool), 0
    for first in range(len(order)):
        if not seen[first]:
            cycles += 1
            place = first
            while not seen[place]:
                seen[place] = True
                place = order[place]
    return len(order) - cycles


def _sign(diagonal: np.ndarray, exchanges: int) -> int:
    """The sign of a determinant from the pivots and the number of exchanges of rows and columns."""
    size = np.abs(diagonal)
    if (
        not np.isfinite(size).all()
        or size.min() <= _PIVOT_UNITS * np.finfo(size.dtype).eps * size.max()
    ):
        return 0
    negative = int((diagonal < 0).sum()) + exchanges
    return -1 if negative % 2 else 1
