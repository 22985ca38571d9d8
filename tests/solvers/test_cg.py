"""Conjugate gradients: what they solve, in how many steps, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import CG, Exact, Solution, Status, Stopping, fixed_point, root
from oracle import Array, iteration_matrix
from torch import Tensor

from .references import FORMS, Form, as_float64, norms, solve_form


def solve(A: Array, b: Array, solver: CG | None = None, **options: object) -> Solution:
    """The root of `A z − b` for a batch of systems, from zero."""
    matrices, right = torch.from_numpy(A), torch.from_numpy(b)
    return root(
        lambda z, A, b: torch.einsum("bij,bj->bi", A, z) - b, torch.zeros_like(right), matrices,
        right, solver=solver or CG(), linear=True, batch_dims=1, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def definite(n: int, condition: float, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(generator.standard_normal((n, n)))[0]
    A = basis @ np.diag(np.geomspace(1, condition, n)) @ basis.T
    return np.asarray((A + A.T) / 2)


@pytest.mark.parametrize("sign", [1, -1], ids=["positive", "negative"])
@given(n=st.integers(1, 9), condition=st.sampled_from([1.0, 10.0, 1e3]), seed=st.integers(0, 1000))
def test_definite_equations_of_either_sign_end_at_the_solution_that_lapack_finds(
    sign: int, n: int, condition: float, seed: int
) -> None:
    A = np.stack([sign * definite(n, condition, seed + i) for i in range(3)])
    b = np.random.default_rng(seed).standard_normal((3, n))
    z = as_float64(solve(A, b).value)
    # ‖A⁻¹‖ = 1, and the residual may be 1e-10 of the first, which is b.
    answer = np.linalg.solve(A, b[:, :, None])[:, :, 0]
    rounding = condition * (n + 3) * np.finfo(float).eps * np.linalg.norm(answer, axis=1)
    assert (norms(z - answer) <= 1.01e-10 * norms(b) + 2 * rounding).all()


@pytest.mark.parametrize("form", FORMS)
@given(n=st.integers(1, 9), seed=st.integers(0, 1000))
def test_symmetric_contractions_are_solved_in_either_form(form: Form, n: int, seed: int) -> None:
    M = iteration_matrix("symmetric", n, 0.9, seed)
    c = np.random.default_rng(seed).standard_normal(n)
    solution = solve_form(
        form, lambda z: torch.from_numpy(M) @ z + torch.from_numpy(c),
        torch.zeros(n, dtype=torch.float64), solver=CG(), linear=True,
    )  # fmt: skip
    answer = np.linalg.solve(np.eye(n) - M, c)
    # ‖(I − M)⁻¹‖ ≤ 10.
    assert norms(as_float64(solution.value) - answer) <= 1.1 * 10 * 1e-10 * norms(c)


@pytest.mark.parametrize("distinct", [1, 2, 4])
def test_there_are_as_many_steps_as_distinct_eigenvalues(distinct: int) -> None:
    generator = np.random.default_rng(distinct)
    basis = np.linalg.qr(generator.standard_normal((12, 12)))[0]
    A = basis @ np.diag(np.resize(np.linspace(1, 3, distinct), 12)) @ basis.T
    solution = solve((A + A.T)[None] / 2, generator.standard_normal((1, 12)))
    assert solution.steps.item() == distinct
    # One for the start, one a step, one that confirms.
    assert solution.evaluations == distinct + 2


def test_each_iterate_is_the_best_in_energy_of_its_krylov_space() -> None:
    n = 12
    A, b = definite(n, 50.0, 3), np.random.default_rng(3).standard_normal(n)
    for k in (1, 3, 6):
        solution = solve(
            A[None], b[None], stopping=Stopping(rtol=0.0, atol=0.0, max_steps=k),
            on_failure="accept", trace=True,
        )  # fmt: skip
        krylov = np.linalg.qr(np.stack([np.linalg.matrix_power(A, i) @ b for i in range(k)], 1))[0]
        best = krylov @ np.linalg.solve(krylov.T @ A @ krylov, krylov.T @ b)
        # The residual of the last iterate; the value is the one of least residual.
        assert solution.trace is not None
        expected = np.linalg.norm(A @ best - b) / np.sqrt(n)
        assert solution.trace[-1, 0] == pytest.approx(expected, rel=1e-9)


NOT_SYMMETRIC = {
    "random": np.eye(6) + 0.5 * np.random.default_rng(0).standard_normal((6, 6)),
    "rotation": np.kron(np.eye(3), np.array([[0.0, -1.0], [1.0, 0.0]])),
    "Jordan block": np.eye(6) + np.diag(np.ones(5), 1),
    "slightly": definite(6, 10.0, 0) + 1e-4 * np.triu(np.ones((6, 6)), 1),
}


@pytest.mark.parametrize("A", NOT_SYMMETRIC.values(), ids=NOT_SYMMETRIC.keys())
@given(seed=st.integers(0, 1000))
def test_an_operator_that_is_not_symmetric_fails_and_never_gives_a_wrong_answer(
    A: Array, seed: int
) -> None:
    b = np.random.default_rng(seed).standard_normal((1, 6))
    solution = solve(A[None], b, on_failure="accept")
    assert solution.status.item() == Status.LINEAR_SOLVE_FAILED
    z = as_float64(solution.value)[0]
    assert solution.residual_norm.item() == pytest.approx(
        norms(A @ z - b[0]) / np.sqrt(6), rel=1e-9
    )
    assert solution.residual_norm.item() > 1e-10 * norms(b)[0] / np.sqrt(6)


@given(seed=st.integers(0, 1000))
def test_an_indefinite_operator_fails_or_is_solved(seed: int) -> None:
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((6, 6)))[0]
    A = basis @ np.diag([1.0, 2.0, 3.0, -1.0, -2.0, -3.0]) @ basis.T
    b = np.random.default_rng(seed).standard_normal((1, 6))
    solution = solve((A + A.T)[None] / 2, b, on_failure="accept")
    assert solution.status.item() == Status.LINEAR_SOLVE_FAILED


def test_one_system_that_is_not_symmetric_does_not_change_its_neighbours() -> None:
    good = np.stack([definite(6, 30.0, i) for i in range(3)])
    mixed = good.copy()
    mixed[1] = NOT_SYMMETRIC["random"]
    b = np.random.default_rng(1).standard_normal((3, 6))
    alone, beside = solve(good, b), solve(mixed, b, on_failure="accept")
    assert beside.status.tolist() == [1, Status.LINEAR_SOLVE_FAILED, 1]
    assert torch.equal(alone.value[[0, 2]], beside.value[[0, 2]])


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])
def test_units_change_nothing_but_exponents(factor: float) -> None:
    A, b = definite(8, 100.0, 5)[None], np.random.default_rng(5).standard_normal((1, 8))
    plain, scaled = solve(A, b), solve(factor * A, factor * b)
    assert torch.equal(plain.value, scaled.value)
    assert torch.equal(plain.steps, scaled.steps)


def test_a_singular_equation_is_solved_where_it_can_be_and_fails_where_it_cannot() -> None:
    A = np.stack([np.diag([0.0, 0.5, 2.0])] * 2)
    solution = solve(A, np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]), on_failure="accept")
    assert solution.converged.tolist() == [True, False]
    np.testing.assert_allclose(as_float64(solution.value)[0], [0.0, 2.0, 0.5], atol=1e-9)
    # No point has a residual below the part of b outside the range.
    assert solution.residual_norm[1].item() >= (1 - 1e-12) / np.sqrt(3)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_exact_preconditioner_of_either_sign_leaves_one_step(sign: int) -> None:
    A, b = definite(10, 1e4, 1), np.ones((1, 10))
    inverse = torch.from_numpy(sign * np.linalg.inv(A))
    preconditioned = CG(preconditioner=lambda v: v @ inverse)
    # Rounding of the inverse, κ·eps, may ask for one more.
    assert solve(A[None], b, preconditioned).steps.item() <= 2
    assert solve(A[None], b).steps.item() >= 10


def test_the_diagonal_as_preconditioner_undoes_bad_scaling() -> None:
    scale = np.geomspace(1, 1e4, 20)
    A, b = scale[:, None] * definite(20, 10.0, 2) * scale, scale * np.ones(20)
    diagonal = torch.from_numpy(np.diag(A).copy())
    stopping = Stopping(rtol=1e-8)
    plain = solve(A[None], b[None], stopping=stopping, on_failure="accept").steps.item()
    scaled = solve(A[None], b[None], CG(preconditioner=lambda v: v / diagonal), stopping=stopping)
    assert scaled.steps.item() <= 30 < plain


def test_a_symmetric_map_may_have_its_adjoint_solved_by_conjugate_gradients() -> None:
    W = torch.from_numpy(iteration_matrix("symmetric", 8, 0.9, 0))
    x = torch.randn(8, dtype=torch.float64, requires_grad=True)

    def solve_with(x: Tensor) -> Tensor:
        # The gradient of a potential: its Jacobian is symmetric.
        def f(z: Tensor, x: Tensor) -> Tensor:
            return torch.tanh(z @ W) @ W + x

        return fixed_point(f, torch.zeros_like(x), x, gradient=Exact(solver=CG())).value

    assert torch.autograd.gradcheck(solve_with, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_rounding_of_a_narrow_dtype_is_not_taken_for_asymmetry(dtype: torch.dtype) -> None:
    for seed in range(10):
        A = torch.from_numpy(definite(8, 10.0, seed)).to(dtype)
        b = torch.from_numpy(np.random.default_rng(seed).standard_normal(8)).to(dtype)
        solution = root(
            lambda z, A, b: A @ z - b, torch.zeros_like(b), A, b, solver=CG(), linear=True,
            on_failure="accept",
        )  # fmt: skip
        assert solution.status.item() != Status.LINEAR_SOLVE_FAILED
        assert dtype != torch.float32 or bool(solution.converged)
