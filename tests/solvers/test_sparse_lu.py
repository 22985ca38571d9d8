"""Sparse LU: patterns found from products against the matrices themselves, solutions against NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    Exact,
    Newton,
    NewtonKrylov,
    SparseLU,
    Status,
    Unrolled,
    problems,
    root,
)
from implicitly.solvers import Problem, solve
from implicitly.solvers.linear.pattern_search import find_pattern
from implicitly.solvers.linear.sparse_lu import SparseMatrices
from implicitly.solvers.linear.sparse_pattern import SparsePattern, noise_level
from oracle import Array
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from .references import as_float64

DOUBLE = np.dtype("d")
NOISE = noise_level(2.0**-52)


class Counted:
    """Products with the matrices of a batch, `(batch, n, n)`, and how many there were."""

    def __init__(self, matrices: Array) -> None:
        self.matrices, self.count = matrices, 0

    def __call__(self, v: Array) -> Array:
        self.count += 1
        return self.matrices @ v


def places(pattern: SparsePattern) -> set[tuple[int, int]]:
    return set(zip(pattern.rows.tolist(), pattern.columns.tolist(), strict=True))


def banded(n: int, offsets: tuple[int, ...]) -> Array:
    """A matrix with these diagonals, all its entries different."""
    generator = np.random.default_rng(n)
    total = np.zeros((n, n))
    for offset in offsets:
        diagonal = np.diagonal(total, offset)
        total += np.diag(generator.uniform(1, 2, len(diagonal)), offset)
    return total


# --- Patterns --------------------------------------------------------------------------------------


@given(
    batch=st.integers(1, 3), n=st.integers(1, 120), per_row=st.integers(0, 6), seed=st.integers(0, 99)
)  # fmt: skip
def test_any_pattern_is_found_from_products(batch: int, n: int, per_row: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    there = generator.random((batch, n, n)) < per_row / n
    # Sizes over four decades, well above the thousand roundings below which an entry does not count.
    sizes = 10 ** generator.uniform(-4, 0, there.shape) * generator.choice((-1, 1), there.shape)
    product = Counted(there * sizes)
    pattern = find_pattern(product, n, DOUBLE, NOISE)
    assert pattern is not None
    assert places(pattern) == set(zip(*np.nonzero(there.any(axis=0)), strict=True))
    np.testing.assert_allclose(
        pattern.entries(product, DOUBLE),
        (there * sizes)[:, pattern.rows, pattern.columns],
        rtol=0, atol=n * 2.0**-52,
    )  # fmt: skip


@given(n=st.integers(1, 60), per_row=st.integers(0, 8), seed=st.integers(0, 99))
def test_columns_of_one_colour_share_no_row(n: int, per_row: int, seed: int) -> None:
    there = np.random.default_rng(seed).random((n, n)) < per_row / n
    pattern = SparsePattern.of(n, *np.nonzero(there))
    for colour in range(pattern.products):
        assert there[:, pattern.colours == colour].sum(axis=1).max() <= 1
    # No fewer than the fullest row has entries, and an empty matrix has one colour.
    assert pattern.products >= max(there.sum(axis=1).max(), 1)
    # What first fit guarantees: a column meets so many others at most.
    meets = (there.T.astype(int) @ there) > 0
    assert pattern.products <= meets.sum(axis=1).max(initial=1)


@pytest.mark.parametrize(
    ("offsets", "colours", "most"),
    [
        ((0,), 1, 15),
        ((-1, 0, 1), 3, 15),
        # Apart by 7 and by 77: the first bucket size, and the first two, tell nothing apart.
        ((-7, 0, 7), 3, 37),
        ((0, 77, 154), 3, 71),
        ((-50, -1, 0, 1, 50), 7, 37),
        (tuple(range(-5, 2)), 7, 15),
    ],
)
def test_products_follow_the_entries_of_a_row_and_not_the_unknowns(
    offsets: tuple[int, ...], colours: int, most: int
) -> None:
    for n in (300, 1500):
        product = Counted(banded(n, offsets)[None])
        pattern = find_pattern(product, n, DOUBLE, NOISE)
        assert pattern is not None
        assert pattern.products <= colours
        # Two for each bucket of a round, and the one that is to be explained.
        assert product.count <= most


def test_equal_entries_of_one_bucket_are_not_taken_for_one_between_them() -> None:
    # Left and right of the diagonal, 7 and 14 columns away: the mean of evenly spaced weights is a weight.
    matrix = sum(np.eye(2000, k=offset) for offset in (-14, -7, 7, 14))
    product = Counted(np.asarray(matrix)[None])
    pattern = find_pattern(product, 2000, DOUBLE, NOISE)
    assert pattern is not None
    assert product.count == 1 + 2 * (7 + 11)


def test_in_single_precision_random_weights_tell_two_entries_from_one_between_them() -> None:
    # Two entries in a bucket of 7, whose 4,286 columns weigh 2e-4 more each than the next, and rounding is
    # taken for 1e-4: the ratio alone finds a column for nearly any pair.
    n = 30_000
    rows = np.arange(n - 7)
    matrix = sparse.csr_array(
        (
            np.tile(np.array([1.0, 1.5], dtype=np.float32), n - 7),
            (rows.repeat(2), (rows[:, None] + [0, 7]).ravel()),
        ),
        shape=(n, n),
    )
    count = 0

    def product(v: Array) -> Array:
        nonlocal count
        count += 1
        return (matrix @ v)[None]

    pattern = find_pattern(product, n, np.dtype("f"), noise_level(2.0**-23))
    assert pattern is not None
    assert len(pattern.rows) == 2 * (n - 7)
    # The few pairs that pass for one in the second round are found out and taken back in the third.
    assert count <= 1 + 3 * (7 + 11 + 13)


def test_entries_that_cancel_in_every_plain_sum_are_found() -> None:
    matrix = np.zeros((200, 200))
    matrix[:, 0], matrix[:, 77 * 2] = 1.0, -1.0  # In one bucket of 7 and one of 11.
    pattern = find_pattern(Counted(matrix[None]), 200, DOUBLE, NOISE)
    assert pattern is not None
    assert set(pattern.columns.tolist()) == {0, 154}
    assert len(pattern.rows) == 400


def test_a_full_matrix_is_found_by_unit_vectors_where_there_is_room() -> None:
    matrix = np.random.default_rng(0).uniform(1, 2, (1, 300, 300))
    product = Counted(matrix)
    pattern = find_pattern(product, 300, DOUBLE, NOISE)
    assert pattern is not None
    assert pattern.products == 300
    # Two rounds of the search say that it is full; the vector to be explained.
    assert product.count == 300 + 2 * (7 + 23) + 1
    # 2²⁴ numbers are 186 such matrices; the product is one for all.
    assert find_pattern(lambda v: np.tile(matrix[0] @ v, (187, 1)), 300, DOUBLE, NOISE) is None


def test_forty_entries_in_a_row_are_found() -> None:
    generator = np.random.default_rng(0)
    n, per_row = 5000, 40
    columns = generator.integers(0, n, (n, per_row))
    matrix = sparse.csr_array(
        (generator.uniform(1, 2, n * per_row), (np.arange(n).repeat(per_row), columns.ravel())),
        shape=(n, n),
    )
    pattern = find_pattern(lambda v: (matrix @ v)[None], n, DOUBLE, NOISE)
    assert pattern is not None
    matrix.sum_duplicates()
    assert len(pattern.rows) == matrix.nnz


def test_products_that_are_not_finite_have_no_pattern() -> None:
    assert find_pattern(Counted(np.full((1, 100, 100), np.nan)), 100, DOUBLE, NOISE) is None
    assert find_pattern(Counted(np.full((1, 5, 5), np.nan)), 5, DOUBLE, NOISE) is None


# --- Solutions -------------------------------------------------------------------------------------


def flat(matrices: Array, right: Array) -> Problem:
    """`A z = b` for every system, all of them one function."""
    A, b = torch.from_numpy(matrices), torch.from_numpy(right)
    return Problem(
        lambda z: torch.einsum("bij,bj->bi", A, z) - b,
        form="root",
        operator=lambda v: torch.einsum("bij,bj->bi", A, v),
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_solutions_are_those_of_dense_matrices(dtype: type) -> None:
    generator = np.random.default_rng(0)
    matrices: Array = np.stack([banded(90, (-1, 0, 3)), banded(90, (-40, 0, 1))]).astype(dtype)
    matrices += 4 * np.eye(90, dtype=dtype)
    right: Array = generator.standard_normal((2, 90)).astype(dtype)
    found = solve(flat(matrices, right), SparseLU(), torch.zeros(2, 90).to(torch.from_numpy(right)))
    assert (found.status == Status.CONVERGED).all()
    exact = np.linalg.solve(matrices.astype(float), right.astype(float)[..., None])[..., 0]
    # The default tolerance is relative to b, by the inverse to z; rows sums leave it below 1.
    tolerance = (1e-10 if dtype is np.float64 else 1e-5) * np.linalg.norm(right, axis=1)
    inverse = np.linalg.norm(np.linalg.inv(matrices.astype(float)), 2, axis=(1, 2))
    assert (np.linalg.norm(as_float64(found.z) - exact, axis=1) <= tolerance * inverse).all()


def test_a_remembered_pattern_costs_its_colours_and_one_product() -> None:
    solver = SparseLU()
    for offsets, products in (
        ((-1, 0, 1), 15 + 3),
        ((-1, 0, 1), 3 + 1),
        ((-1, 0), 3 + 1),  # The old pattern holds this one as well.
        ((0, 5), 3 + 1 + 15 + 2),  # Another: tried in vain.
        ((0, 5), 2 + 1),
    ):
        problem = flat(4 * np.eye(150)[None] + banded(150, offsets), np.ones((1, 150)))
        found = solve(problem, solver, torch.zeros(1, 150, dtype=torch.float64))
        assert found.status.item() == Status.CONVERGED
        assert problem.counts.jvps == products
    forgetful = SparseLU(remember=False)
    for _ in range(2):
        problem = flat(banded(150, (0,))[None], np.ones((1, 150)))
        solve(problem, forgetful, torch.zeros(1, 150, dtype=torch.float64))
        assert problem.counts.jvps == 15 + 1
    assert forgetful.known.pattern is None


def test_systems_do_not_depend_on_one_another() -> None:
    matrices: Array = np.stack([banded(60, (-1, 0)), banded(60, (0, 2, 9)), 3 * np.eye(60)])
    right: Array = np.random.default_rng(1).standard_normal((3, 60))
    start = torch.zeros(3, 60, dtype=torch.float64)
    together = solve(flat(matrices, right), SparseLU(), start)
    for index in range(3):
        one = slice(index, index + 1)
        alone = solve(flat(matrices[one], right[one]), SparseLU(), start[one])
        # Entries from other products differ in rounding.
        np.testing.assert_allclose(
            as_float64(together.z[one]), as_float64(alone.z), rtol=0,
            atol=1e-13 * np.linalg.cond(matrices[index]),
        )  # fmt: skip


def test_a_singular_matrix_that_is_not_consistent_says_so() -> None:
    matrix = banded(50, (0,))
    matrix[3, 3] = 0.0
    found = solve(flat(matrix[None], np.ones((1, 50))), SparseLU(), torch.zeros(1, 50).double())
    assert found.status.item() == Status.LINEAR_SOLVE_FAILED
    least = np.linalg.lstsq(matrix, np.ones(50), rcond=None)[0]
    np.testing.assert_allclose(as_float64(found.z)[0], least, rtol=0, atol=1e-9)


def test_a_matrix_that_is_singular_but_for_rounding_gets_the_least_squares_solution() -> None:
    # Differences around a circle: constants are lost, and LU finds a last pivot that is not quite zero.
    n = 50
    matrix = 2.1 * np.eye(n) - np.roll(np.eye(n), 1, 0) - 1.1 * np.roll(np.eye(n), -1, 0)
    right = 1 + np.sin(np.arange(n) * 2 * np.pi / n)
    found = solve(flat(matrix[None], right[None]), SparseLU(), torch.zeros(1, n).double())
    assert found.status.item() == Status.LINEAR_SOLVE_FAILED
    least = np.linalg.lstsq(matrix, right, rcond=1e-12)[0]
    smallest = np.linalg.svd(matrix, compute_uv=False)[-2]
    # Normal equations, in which the condition counts twice.
    atol = 100 * 2.0**-52 * np.linalg.norm(right) / smallest * (4 / smallest)
    np.testing.assert_allclose(as_float64(found.z)[0], least, rtol=0, atol=atol)


def test_too_many_entries_of_too_many_unknowns_are_a_failed_solve() -> None:
    products = 0

    def operator(v: Tensor) -> Tensor:  # The identity and a matrix of ones.
        nonlocal products
        products += 1
        return v + v.sum(dim=1, keepdim=True) / v.shape[1]

    problem = Problem(lambda z: operator(z) - 1, form="root", operator=operator)
    found = solve(problem, SparseLU(), torch.zeros(1, 5000, dtype=torch.float64))
    assert found.status.item() == Status.LINEAR_SOLVE_FAILED
    # Three rounds, the vector to be explained, and the evaluations of the driver.
    assert products <= 1 + 2 * (7 + 23 + 71) + 4
    assert not found.z.any()


# --- In equations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n"), [("power-flow", 400), ("bratu", 400), ("driven-cavity", 200), ("troesch", 300)]
)
def test_it_makes_newtons_method_with_sparse_jacobians(name: str, n: int) -> None:
    problem = problems.get(name)
    start = problem.start(problem.size(n))
    dense = root(problem.function, start, solver=Newton(globalisation=None))
    full = NewtonKrylov(linear_solver=SparseLU(), globalisation=None)
    sparse = root(problem.function, start, solver=full)
    # Steps as good as asked for, which are exact ones here: those of the dense Jacobian.
    assert sparse.steps == dense.steps
    jacobian = torch.func.jacrev(problem.function)(dense.value)
    smallest = torch.linalg.svdvals(jacobian)[-1]
    distance = torch.linalg.vector_norm(sparse.value - dense.value)
    assert (
        distance
        <= 2 * start.numel() ** 0.5 * (sparse.residual_norm + dense.residual_norm) / smallest
    )


def diffusion(z: Tensor, source: Tensor) -> Tensor:
    """`−z″ + z³ = source` on a line, with zeros at its ends."""
    padded = torch.nn.functional.pad(z, (1, 1))
    return 2 * z - padded[..., 2:] - padded[..., :-2] + z**3 - source


def test_gradients_by_a_sparse_adjoint_are_those_of_the_dense_one() -> None:
    source = torch.linspace(0.1, 1, 200, dtype=torch.float64).requires_grad_()
    weight = torch.linspace(-1, 2, 200, dtype=torch.float64)
    z = root(
        diffusion, torch.zeros(200, dtype=torch.float64), source,
        solver=NewtonKrylov(linear_solver=SparseLU()), gradient=Exact(solver=SparseLU()),
    ).value  # fmt: skip
    (gradient,) = torch.autograd.grad(z @ weight, source)
    jacobian = torch.func.jacrev(diffusion)(z.detach(), source.detach())
    expected = torch.linalg.solve(jacobian.mT, weight)
    # Solution and adjoint are each within 1e-10, by the inverse; the second derivative is below 6.
    inverse = 1 / torch.linalg.svdvals(jacobian)[-1]
    error = torch.linalg.vector_norm(gradient - expected)
    assert error <= 1e-10 * inverse * (1 + 6 * inverse) * torch.linalg.vector_norm(expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda f, z0, x: root(f, z0, x, solver=SparseLU(), linear=True, gradient=Unrolled()),
        lambda f, z0, x: root(
            f, z0, x, solver=NewtonKrylov(linear_solver=SparseLU()), gradient=Unrolled()
        ),
    ],
)
def test_factors_are_not_recorded(call: Callable[..., object]) -> None:
    x = torch.ones(5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(TypeError, match="no steps that could be recorded"):
        call(lambda z, x: 2 * z - x, torch.zeros(5, dtype=torch.float64), x)


def test_a_nonlinear_equation_is_refused() -> None:
    with pytest.raises(TypeError, match="solves linear equations only"):
        root(lambda z: z**2 - 2, torch.ones(3), solver=SparseLU())


def test_copies_share_what_is_remembered_and_equal_ones_need_not() -> None:
    solver = SparseLU()
    assert dataclasses.replace(solver).known is solver.known
    assert SparseLU() == solver
    assert SparseLU().known is not solver.known


def test_half_precision_has_too_few_digits_for_sums_and_takes_unit_vectors() -> None:
    solution = root(
        lambda z: 2 * z - z.roll(1, -1) - 1, torch.zeros(100, dtype=torch.bfloat16),
        solver=SparseLU(), linear=True,
    )  # fmt: skip
    # Probe, unit vectors, two colours. Rounding of the data aside, the solution is that of ones.
    assert solution.counts.jvps == 1 + 100 + 2
    assert (solution.value - 1).abs().max() <= 2**-6


# --- Full rows and columns -------------------------------------------------------------------------


@given(
    batch=st.integers(1, 2), n=st.integers(30, 150), rows=st.integers(0, 3),
    columns=st.integers(0, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_few_full_rows_and_columns_are_found_by_products_on_both_sides(
    batch: int, n: int, rows: int, columns: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    there = np.tile(banded(n, (-1, 0, 1)) != 0, (batch, 1, 1))
    for _ in range(rows):
        there[:, generator.integers(n)] = True
    for _ in range(columns):
        there[:, :, generator.integers(n)] = True
    matrices = there * generator.uniform(1, 2, there.shape) * generator.choice((-1, 1), there.shape)
    product, transposed = Counted(matrices), Counted(matrices.mT)
    pattern = find_pattern(product, n, DOUBLE, NOISE, transposed)
    assert pattern is not None
    assert places(pattern) == set(zip(*np.nonzero(there.any(axis=0)), strict=True))
    # A product for each full row or column; a column of the band meets four others.
    assert pattern.products <= rows + columns + 5
    np.testing.assert_allclose(
        pattern.entries(product, DOUBLE, transposed),
        matrices[:, pattern.rows, pattern.columns],
        rtol=0, atol=n * 2.0**-50,
    )  # fmt: skip


def test_rows_of_one_colour_share_no_column() -> None:
    n = 60
    there = np.eye(n, dtype=bool)
    there[1, 1] = False  # Rows 0 and 1 are apart.
    there[0, : n // 2] = there[1, n // 2 :] = there[2, ::2] = True
    pattern = SparsePattern.of(n, *np.nonzero(there), transposed=True)
    for direction in pattern.transposed_directions:
        assert there[direction].sum(axis=0).max() <= 1
    assert len(pattern.transposed_directions) == 2
    assert set(np.flatnonzero(pattern.row_colours >= 0)) == {0, 1, 2}


def test_a_search_for_a_full_row_takes_no_more_products_for_more_unknowns() -> None:
    counts: list[int] = []
    for n, dtype in ((5_000, DOUBLE), (50_000, DOUBLE), (200_000, np.dtype("f"))):
        # Of a mean: the sums of single precision would not see them.
        entries = np.full(n, 1 / n, dtype=dtype)

        def product(v: Array, n: int = n, entries: Array = entries) -> Array:
            counts[-1] += 1
            return np.append(3 * v[:-1] - v[1:], entries @ v)[None]

        def transposed(u: Array, n: int = n, entries: Array = entries) -> Array:
            counts[-1] += 1
            value = entries * u[-1]
            value[:-1] += 3 * u[:-1]
            value[1:] -= u[:-1]
            return value[None]

        counts.append(0)
        noise = noise_level(float(np.finfo(dtype).eps))
        pattern = find_pattern(product, n, dtype, noise, transposed)
        assert pattern is not None
        assert len(pattern.rows) == 2 * (n - 1) + n
    assert max(counts) <= 24  # Single precision takes three sums of each bucket, double two.


def bordered(n: int) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Array], Any]]:
    """`−u″ + u³ = b + λ (1 + s)` without flux, `∫ u = a`: the residual for `(a, b)`, and its Jacobian."""
    s = (np.arange(n) + 0.5) / n
    weight, source = torch.from_numpy(1 + s), torch.from_numpy(np.sin(5 * s))

    def residual(x: Tensor, p: Tensor) -> Tensor:
        u, multiplier = x[:-1], x[-1]
        padded = torch.cat((u[:1], u, u[-1:]))
        laplacian = (padded[2:] - 2 * u + padded[:-2]) * n**2
        rest = -laplacian + u**3 - p[1] * source - multiplier * weight
        return torch.cat((rest, (u.mean() - p[0]).reshape(1)))

    def jacobian(x: Array) -> Any:
        off = -np.ones(n - 1) * n**2
        main = np.full(n, 2.0 * n**2)
        main[[0, -1]] = n**2
        inner = sparse.diags([off, main + 3 * x[:-1] ** 2, off], [-1, 0, 1])
        return sparse.bmat([[inner, -(1 + s)[:, None]], [np.full((1, n), 1 / n), None]]).tocsc()

    return residual, jacobian


def test_a_constraint_on_a_mean_costs_two_more_products_and_no_fill() -> None:
    n = 4000
    residual, jacobian = bordered(n)
    start, p = torch.zeros(n + 1, dtype=torch.float64), torch.tensor([0.5, 3.0]).double()
    p.requires_grad_()
    solution = root(residual, start, p, solver=NewtonKrylov(linear_solver=SparseLU()))
    assert solution.counts.products < 15 * solution.steps + 100
    x = solution.value.detach().numpy()
    matrix = jacobian(x)
    # The oracle: the same Newton step by SuperLU, and the adjoint by hand.
    step = spsolve(matrix, residual(solution.value, p).detach().numpy())
    assert np.abs(step).max() <= 1e-9 * np.abs(x).max()
    weight = np.append(np.linspace(-1, 1, n) / n, 0.0)
    (gradient,) = torch.autograd.grad(
        solution.value @ torch.from_numpy(weight), p, create_graph=True
    )
    adjoint = spsolve(matrix.T.tocsc(), -weight)
    source = np.sin(5 * (np.arange(n) + 0.5) / n)
    expected = np.array([-adjoint[-1], -(adjoint[:-1] @ source)])
    np.testing.assert_allclose(gradient.detach().numpy(), expected, rtol=1e-7)
    assert all(solve.counts.products < 50 for solve in solution.adjoints)
    # The second derivative in `b`, by u‴ forms: xᵀ is linear in p but for u³, so x″ solves J x″ = −6 u u′².
    (second,) = torch.autograd.grad(gradient[1], p)
    slope = spsolve(matrix, np.append(source, 0.0))
    curved = np.append(6 * x[:-1] * slope[:-1] ** 2, 0.0)
    np.testing.assert_allclose(second[1].item(), adjoint @ curved, rtol=1e-6)


def test_a_full_row_is_no_early_pivot() -> None:
    n = 3000
    _, jacobian = bordered(n)
    matrix = jacobian(np.zeros(n + 1)).tocoo()
    pattern = SparsePattern.of(n + 1, matrix.row, matrix.col, transposed=True)
    order = np.lexsort((matrix.col, matrix.row))
    for unit in (1.0, 1e9):  # The unit of the constraint is of no matter.
        entries = matrix.data * np.where(matrix.row == n, unit, 1.0)
        matrices = SparseMatrices(pattern, entries[order][None])
        right = np.random.default_rng(0).standard_normal(n + 1)
        found = matrices.solve(0, right)
        ((factors, _),) = matrices.factors.values()
        assert factors.L.nnz + factors.U.nnz < 10 * n
        whole = pattern.matrix(entries[order])
        found = found + matrices.solve(0, right - whole @ found)
        left = np.abs(right - whole @ found)
        # The constant mode of the inner matrix, which is singular, has the size of the constraint.
        assert (left <= 1e-9 * (np.abs(whole) @ np.abs(found) + np.abs(right))).all()
