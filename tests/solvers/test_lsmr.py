"""LSMR: least squares, minimum norm, and what its residuals do on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import GMRES, LSMR, NewtonKrylov, Solution, Solver, Stopping, root
from implicitly.solvers import Problem
from implicitly.solvers import solve as solve_flat
from oracle import Array
from scipy.sparse.linalg import lsmr as scipy_lsmr
from torch import Tensor

from .references import as_float64, norms


def solve(A: Array, b: Array, solver: Solver | None = None, **options: object) -> Solution:
    """The root of `A z − b` from zero."""
    matrix, right = torch.from_numpy(A), torch.from_numpy(b)
    return root(
        lambda z: matrix @ z - right, torch.zeros_like(right),
        solver=solver or LSMR(), linear=True, **options,  # type: ignore[arg-type]
    )  # fmt: skip


@given(n=st.integers(1, 8), seed=st.integers(0, 1000))
def test_indefinite_and_skew_operators_are_solved(n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.standard_normal((n, n)))[0] for _ in range(2))
    A, b = left @ np.diag(np.linspace(1, 10, n)) @ right, generator.standard_normal(n)
    z = as_float64(solve(A, b).value)
    # ‖A⁻¹‖ = 1.
    assert norms(z - np.linalg.solve(A, b)) <= 1.01e-10 * norms(b)


def test_a_cyclic_shift_which_stops_restarted_gmres_takes_one_step() -> None:
    n = 12
    shift, b = np.roll(np.eye(n), 1, axis=0), np.eye(n)[0]
    assert solve(shift, b).steps.item() == 1
    stopping = Stopping(max_steps=100)
    stuck = solve(shift, b, GMRES(restart=4), stopping=stopping, on_failure="accept")
    assert not bool(stuck.converged)


@given(seed=st.integers(0, 1000), rank=st.integers(1, 5))
def test_an_inconsistent_equation_fails_at_the_least_squares_solution_of_minimum_norm(
    seed: int, rank: int
) -> None:
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.standard_normal((6, 6)))[0] for _ in range(2))
    A = left[:, :rank] @ np.diag(np.linspace(1, 3, rank)) @ right[:rank]
    b = generator.standard_normal(6)
    solution = solve(A, b, on_failure="accept")
    assert not bool(solution.converged)
    best = np.linalg.lstsq(A, b, rcond=1e-10)[0]
    # Residuals near the least are all alike to rounding: z is known to its square root.
    np.testing.assert_allclose(as_float64(solution.value), best, rtol=0, atol=1e-6)
    assert solution.residual_norm.item() == pytest.approx(norms(A @ best - b) / 6**0.5, rel=1e-9)


def test_the_iterates_are_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    A, b = generator.standard_normal((15, 15)), generator.standard_normal(15)
    for k in (1, 4, 9):
        stopping = Stopping(rtol=0.0, atol=0.0, max_steps=k)
        solution = solve(A, b, stopping=stopping, on_failure="accept")
        expected = scipy_lsmr(A, b, atol=0, btol=0, conlim=0, maxiter=k)[0]
        # Both lose orthogonality at the rate of rounding times the condition number, 1e2.
        np.testing.assert_allclose(as_float64(solution.value), expected, rtol=0, atol=1e-11)


def test_the_residual_never_grows() -> None:
    generator = np.random.default_rng(1)
    A, b = generator.standard_normal((30, 30)), generator.standard_normal(30)
    trace = solve(A, b, trace=True, on_failure="accept").trace
    assert trace is not None
    assert (np.diff(trace[:, 0]) <= 1e-12 * trace[:-1, 0]).all()


def test_a_step_is_one_product_with_the_operator_and_one_with_its_transpose() -> None:
    generator = np.random.default_rng(2)
    solution = solve(np.eye(9) + 0.1 * generator.standard_normal((9, 9)), np.ones(9))
    steps = int(solution.steps)
    # One evaluation at the start, one that confirms; one transposed product to set out.
    assert solution.evaluations == steps + 2
    assert solution.counts.vjps == steps + 1


def test_newton_krylov_may_use_it() -> None:
    def F(z: Tensor) -> Tensor:
        return torch.stack([z[1] ** 3 - 8, z[0] - z[1]])

    z0 = torch.tensor([1.0, 1.0], dtype=torch.float64)
    z = root(F, z0, solver=NewtonKrylov(linear_solver=LSMR())).value
    np.testing.assert_allclose(as_float64(z), [2.0, 2.0], rtol=1e-9)


def test_a_problem_without_a_transpose_is_refused() -> None:
    problem = Problem(lambda z: 0.5 * z + 1, operator=lambda v: 0.5 * v)
    with pytest.raises(TypeError, match=r"Problem\(transpose="):
        solve_flat(problem, LSMR(), torch.zeros(1, 1))
