"""Sparse LU factorisation of matrices that are found from products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...options.libraries import needs
from ...options.options import check_truth
from ..interface.problem import Problem
from ..interface.solver import Solver, Transpose
from .dense import SINGULAR_UNITS, powers_of_two
from .refinement import refinement_ends

if TYPE_CHECKING:
    from .sparse_pattern import Product, SparsePattern

_LEAST_SQUARES_STEPS = 1000
# A row that is much fuller than the others is chosen as a pivot only where no other candidate is larger than
# this power of eps times its own; as an earlier pivot it would fill the factors. The digits that such pivots
# cost come back with the next step of refinement.
_LATE = 0.5


@dataclass
class KnownPattern:
    """Sparsity pattern that a `SparseLU` keeps between solves.

    Attributes:
        pattern: The places of the entries in the matrices of the last solve, or `None`.

    Examples:
        >>> import implicitly
        >>> implicitly.SparseLU().known
        KnownPattern(pattern=None)
    """

    pattern: SparsePattern | None = None


@dataclass(frozen=True)
class SparseMatrices:
    """Sparse matrices of a batch, each factored when it is first needed.

    Attributes:
        pattern: The places at which any of them has an entry.
        entries: `(batch, entries)`, in the order of the pattern.
        factors: The factors that SuperLU gave for the matrix in `units`, and the norm of that matrix, by
            place in the batch; `None` where a pivot is zero.
    """

    pattern: SparsePattern
    entries: np.ndarray
    factors: dict[int, Any] = field(default_factory=dict)

    @cached_property
    def norms(self) -> np.ndarray:
        """Frobenius norms, `(batch,)`."""
        norms: np.ndarray = np.linalg.norm(self.entries, axis=1)
        return norms

    @cached_property
    def units(self) -> tuple[np.ndarray, np.ndarray]:
        """Powers of two for rows and columns, `(batch, n)`, that bring the sums of their entries near one."""
        rows = self._unit(self.entries, self.pattern.rows)
        return rows, self._unit(self.entries * rows[:, self.pattern.rows], self.pattern.columns)

    def _unit(self, entries: np.ndarray, lines: np.ndarray) -> np.ndarray:
        sums = np.stack([np.bincount(lines, one, self.pattern.n) for one in np.abs(entries)])
        return powers_of_two(torch.from_numpy(sums)).numpy().astype(entries.dtype)

    def solve(self, place: int, right: np.ndarray) -> np.ndarray:
        """`A⁻¹ b` of the matrix at `place`; by least squares if that is singular."""
        with needs("scipy", "SparseLU"):
            from scipy.sparse.linalg import lsmr, splu

        pattern, (rows, columns) = self.pattern, (part[place] for part in self.units)
        eps = float(np.finfo(right.dtype).eps)
        weights = np.where(pattern.full_rows, eps**_LATE, 1.0).astype(right.dtype)
        if place not in self.factors:
            scaled = self.entries[place] * rows[pattern.rows] * columns[pattern.columns]
            weighted = pattern.matrix(scaled * weights[pattern.rows])
            try:
                self.factors[place] = splu(weighted), np.linalg.norm(scaled)
            except RuntimeError:  # SuperLU raises it for a pivot that is zero.
                self.factors[place] = None
        if self.factors[place] is not None:
            (factors, norm), scaled_right = self.factors[place], rows * right
            solution: np.ndarray = factors.solve(weights * scaled_right)
            # The same test for a numerically singular matrix as in `dense.py`.
            unit = SINGULAR_UNITS * len(right) ** 0.5 * eps
            if unit * norm * np.linalg.norm(solution) <= np.linalg.norm(scaled_right):
                return columns * solution
        matrix = self.pattern.matrix(self.entries[place])
        least: np.ndarray = lsmr(
            matrix, right, atol=0.0, btol=0.0, conlim=0.0, maxiter=_LEAST_SQUARES_STEPS
        )[0]
        return least.astype(right.dtype)


@dataclass
class SparseState:
    """Iterate, matrices of the batch, and the place of each system among them."""

    z: Tensor
    residual: Tensor
    end_status: Tensor
    place: Tensor
    """Places in the batch that the solve began with, `(batch,)`."""
    matrices: SparseMatrices | None
    """`None` where the search for the entries failed."""


@dataclass(frozen=True)
class SparseLU(Solver):
    """Find the matrix of every system from few products, factor it as a sparse one; further steps refine.

    The solver is for equations in which each unknown meets few others: discretised differential
    equations, networks. The pattern of the entries need not be given: products with the operator find it,
    some ten for each entry of a row, however many unknowns there are. Once a pattern is known, one
    product for each colour of its columns gives the entries, and one more product, with a random vector,
    shows whether the pattern still holds. A few full rows, as of a constraint on a mean, take a product with
    the transpose each, and full columns a product each. `NewtonKrylov(linear_solver=SparseLU())` is
    Newton's method with sparse Jacobians.

    SuperLU factors one matrix after another, on the CPU. Its memory depends on the pattern: some
    `30 n log n` numbers for a grid in the plane, far more in space. A singular matrix gets a least-squares
    solution by LSMR. A system ends with `LINEAR_SOLVE_FAILED` where its matrix is too full: 1024 products
    do not find its entries, and there are more than 4096 unknowns or 2²⁴ numbers. Autograd does not record
    the factors, so that the gradient mode `Unrolled` cannot differentiate this solver.

    Attributes:
        remember: Try the pattern of the last solve first.
        known: The pattern that is remembered. Copies by `dataclasses.replace` share it.

    Raises:
        TypeError: `remember` is not a truth value.

    Source: Curtis, Powell & Reid 1974 (entries from few products); Demmel, Eisenstat, Gilbert, Li & Liu
    1999 (SuperLU); Duff, Erisman & Reid 2017, section 5.2 (threshold pivoting, here by weights of full rows);
    Higham 2002, chapter 12 (refinement).

    Examples:
        >>> import torch, implicitly
        >>> def F(z):  # 1000 unknowns, each with its neighbours
        ...     return 2 * z - 0.9 * z.roll(1) - 0.9 * z.roll(-1) - 0.2
        >>> z0 = torch.zeros(1000, dtype=torch.float64)
        >>> solution = implicitly.root(F, z0, solver=implicitly.SparseLU(), linear=True)
        >>> bool((solution.value - 1).abs().max() < 1e-12), solution.counts.jvps < 50
        (True, True)
    """

    remember: bool = True
    known: KnownPattern = field(default_factory=KnownPattern, compare=False, repr=False)
    needs: ClassVar[str] = "products"
    suits: ClassVar[str] = "unknowns that meet few others: finds the entries by itself"
    linear_only: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 10

    def __post_init__(self) -> None:
        check_truth("remember", self.remember)

    def for_derivative(self, transpose: Transpose | None) -> Solver | None:
        pattern = self.known.pattern
        if pattern is not None and transpose is not None:
            pattern = pattern.transposed
        return replace(self, known=KnownPattern(pattern))

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> SparseState:
        if torch.is_grad_enabled() and residual.requires_grad:
            raise TypeError(
                "SparseLU has no steps that could be recorded, its factors are numbers: choose GMRES or "
                "DenseLU, or a gradient mode other than Unrolled"
            )
        none = torch.zeros(z.shape[0], dtype=torch.int8, device=z.device)
        place = torch.arange(z.shape[0], device=z.device)
        matrices = sparse_matrices(problem, z, self.known if self.remember else KnownPattern())
        return SparseState(z, residual, none, place, matrices)

    def step(self, problem: Problem, state: SparseState) -> SparseState:
        before = torch.linalg.vector_norm(state.residual, dim=1)
        right = state.residual.cpu().numpy()
        move, size = np.zeros_like(right), np.zeros_like(right[:, 0])
        going = before > 0 if problem.finished is None else ~problem.finished.squeeze(1)
        if state.matrices is not None:
            for row in np.flatnonzero(going.cpu().numpy()):
                place = int(state.place[row])
                move[row] = state.matrices.solve(place, right[row])
                size[row] = state.matrices.norms[place]
        z = state.z - torch.from_numpy(move).to(state.z)
        residual = problem.residual(z)
        end_status = refinement_ends(before, residual, torch.from_numpy(size).to(z), z)
        return SparseState(z, residual, end_status, state.place, state.matrices)


def sparse_matrices(problem: Problem, like: Tensor, known: KnownPattern) -> SparseMatrices | None:
    """The matrices of the residual's linear part, by a known pattern if that holds, else by a search.

    Args:
        problem: A linear problem.
        like: A tensor of the shape, dtype and device of its unknowns, `(batch, n)`.
        known: The pattern that is tried first; it takes the one that is found.

    Returns:
        The matrices; `None` where they are too full to be found.
    """
    # SciPy's sparse matrices and Numba are slow to import, and few solves need them.
    with needs("scipy", "SparseLU"):
        from .pattern_search import find_pattern
        from .sparse_pattern import noise_level, probe_vector, tells_apart

    n, (product, transposed) = like.shape[1], _products(problem, like)
    dtype = like.new_empty(0, device="cpu").numpy().dtype
    noise = noise_level(torch.finfo(problem.precision or like.dtype).eps)
    pattern = known.pattern
    usable = pattern is not None and (transposed is not None or not pattern.two_sided)
    if pattern is not None and usable and pattern.n == n and tells_apart(noise):
        probe = probe_vector(n, dtype)
        entries = pattern.entries(product, dtype, transposed)
        if pattern.explains(entries, probe, product(probe), noise):
            return SparseMatrices(pattern, entries)
    pattern = find_pattern(product, n, dtype, noise, transposed)
    if pattern is None:
        return None
    known.pattern = pattern
    return SparseMatrices(pattern, pattern.entries(product, dtype, transposed))


def _products(problem: Problem, like: Tensor) -> tuple[Product, Product | None]:
    """Products of all matrices of the residual's linear part with one vector, and of their transposes."""
    derivative = problem.linearization(like)

    def on_arrays(product: Callable[[Tensor], Tensor]) -> Product:
        def applied(vector: np.ndarray) -> np.ndarray:
            same = torch.from_numpy(vector).to(like).expand_as(like)
            value: np.ndarray = product(same).detach().cpu().numpy()
            return value

        return applied

    transposed = None if problem.transpose is None else on_arrays(derivative.vjp)
    return on_arrays(derivative.jvp), transposed
