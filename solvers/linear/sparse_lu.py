"""Sparse LU factorisation for linear equations whose matrices are found from products."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..options import check_truth
from ..problem import Problem
from ..solution import Status
from ..solver import Solver

if TYPE_CHECKING:
    from .sparse_pattern import Product, SparsePattern

# A solution larger than `‖b‖ / ‖A‖` by nearly 1/eps says that `A` is singular but for rounding.
_SINGULAR_UNITS = 16.0
_LEAST_SQUARES_STEPS = 1000


@dataclass
class KnownPattern:
    """What a `SparseLU` remembers between solves.

    Attributes:
        pattern: Where the matrices of the last solve have entries, or `None`.

    Examples:
        >>> import implicitly
        >>> implicitly.SparseLU().known
        KnownPattern(pattern=None)
    """

    pattern: SparsePattern | None = None


@dataclass(frozen=True)
class SparseMatrices:
    """The matrices of a batch, with their factors as far as they were needed.

    Attributes:
        pattern: Where any of them has entries.
        entries: `(batch, entries)`, in the order of the pattern.
        norms: Frobenius norms, `(batch,)`.
        factors: By the place in the batch: what SuperLU gave, `None` where a pivot is zero.
    """

    pattern: SparsePattern
    entries: np.ndarray
    norms: np.ndarray
    factors: dict[int, Any] = field(default_factory=dict)

    def solve(self, place: int, right: np.ndarray) -> np.ndarray:
        """`A⁻¹ b` of the matrix at `place`; by least squares if that is singular."""
        from scipy.sparse.linalg import lsmr, splu

        if place not in self.factors:
            try:
                self.factors[place] = splu(self.pattern.matrix(self.entries[place]))
            except RuntimeError:  # SuperLU's word for a pivot that is zero.
                self.factors[place] = None
        factors = self.factors[place]
        if factors is not None:
            solution: np.ndarray = factors.solve(right)
            size = self.norms[place] * np.linalg.norm(solution)
            # As large as that of a matrix that is singular but for rounding.
            units = _SINGULAR_UNITS * len(right) ** 0.5 * np.finfo(right.dtype).eps
            if units * size <= np.linalg.norm(right):
                return solution
        matrix = self.pattern.matrix(self.entries[place])
        least: np.ndarray = lsmr(
            matrix, right, atol=0.0, btol=0.0, conlim=0.0, maxiter=_LEAST_SQUARES_STEPS
        )[0]
        return least.astype(right.dtype)


@dataclass
class SparseState:
    """The iterate, and where to find the matrix of each system."""

    z: Tensor
    residual: Tensor
    failed: Tensor
    place: Tensor
    """Places in the batch that the solve began with, `(batch,)`."""
    matrices: SparseMatrices | None
    """`None` where none could be found."""


@dataclass(frozen=True)
class SparseLU(Solver):
    """Find the matrix of every system from few products, factor it as a sparse one; further steps refine.

    For equations in which each unknown meets few others: discretised differential equations, networks.
    Nobody needs to say where the entries are: products with the operator find them, some ten for each
    entry that a row has, however many unknowns there are. A pattern that is known tells the entries in
    one product for each colour of its columns, and one more product, with a random vector, whether it
    still holds. In `NewtonKrylov(linear_solver=SparseLU())` it makes Newton's method with sparse Jacobians.

    SuperLU factors one matrix after another, on the CPU. Its memory depends on the pattern: some
    `30 n log n` numbers for a plane grid, far more in space. Where a matrix turns out to be singular, LSMR
    gives a least-squares solution. Matrices that are too full are `LINEAR_SOLVE_FAILED`: those whose
    entries 1024 products do not find, if there are more than 4096 unknowns or 2²⁴ numbers. Nothing records
    the factors, so that the gradient mode `Unrolled` cannot have it.

    Attributes:
        remember: Whether to try the pattern of the last solve first.
        known: What is remembered. Copies by `dataclasses.replace` share it.

    Raises:
        TypeError: `remember` is not a truth value.

    Source: Curtis, Powell & Reid 1974 (entries from few products); Demmel, Eisenstat, Gilbert, Li & Liu
    1999 (SuperLU); Higham 2002, chapter 12 (refinement).

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
    linear_only: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 10

    def __post_init__(self) -> None:
        check_truth("remember", self.remember)

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> SparseState:
        if torch.is_grad_enabled() and residual.requires_grad:
            raise TypeError(
                "SparseLU has no steps that could be recorded, its factors are numbers: choose GMRES or "
                "DenseLU, or a gradient mode other than Unrolled"
            )
        none = torch.zeros(z.shape[0], dtype=torch.int8, device=z.device)
        place = torch.arange(z.shape[0], device=z.device)
        return SparseState(z, residual, none, place, self._matrices(problem, z))

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
        after = torch.linalg.vector_norm(residual, dim=1)
        # Refinement ends at the rounding errors of the products with the matrix.
        size = torch.from_numpy(size).to(z) * torch.linalg.vector_norm(z, dim=1)
        at_rounding = after <= 100 * z.shape[1] * torch.finfo(z.dtype).eps * size
        failed = torch.where(at_rounding, int(Status.STALLED), int(Status.LINEAR_SOLVE_FAILED))
        failed = torch.where(after <= 0.5 * before, 0, failed)
        return SparseState(z, residual, failed, state.place, state.matrices)

    def _matrices(self, problem: Problem, like: Tensor) -> SparseMatrices | None:
        # SciPy's sparse matrices and Numba are slow to import, and few solves need them.
        from .sparse_pattern import noise_level

        product = _products(problem, like)
        noise = noise_level(torch.finfo(problem.precision or like.dtype).eps)
        found = self._known(product, like, noise) or self._searched(product, like, noise)
        if found is None:
            return None
        pattern, entries = found
        return SparseMatrices(pattern, entries, np.linalg.norm(entries, axis=1))

    def _known(
        self, product: Product, like: Tensor, noise: float
    ) -> tuple[SparsePattern, np.ndarray] | None:
        """Pattern and entries by the pattern of the last solve, if that holds."""
        from .sparse_pattern import probe_vector

        pattern = self.known.pattern
        if not self.remember or pattern is None or pattern.n != like.shape[1]:
            return None
        dtype = _dtype(like)
        entries, probe = pattern.entries(product, dtype), probe_vector(pattern.n, dtype)
        holds = pattern.explains(entries, probe, product(probe), noise)
        return (pattern, entries) if holds else None

    def _searched(
        self, product: Product, like: Tensor, noise: float
    ) -> tuple[SparsePattern, np.ndarray] | None:
        """Pattern and entries from nothing."""
        from .sparse_pattern import find_pattern

        pattern = find_pattern(product, like.shape[1], _dtype(like), noise)
        if pattern is None:
            return None
        if self.remember:
            self.known.pattern = pattern
        return pattern, pattern.entries(product, _dtype(like))


def _dtype(like: Tensor) -> np.dtype:
    return like.new_empty(0, device="cpu").numpy().dtype


def _products(problem: Problem, like: Tensor) -> Product:
    """The products of all matrices with one vector, by the linear part of the residual."""
    derivative = problem.linearization(like)

    def product(vector: np.ndarray) -> np.ndarray:
        same = torch.from_numpy(vector).to(like).expand_as(like)
        value: np.ndarray = derivative.jvp(same).detach().cpu().numpy()
        return value

    return product
