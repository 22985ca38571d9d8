"""Every solver of linear equations against LAPACK, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    GMRES,
    BiCGStab,
    DenseLU,
    NeumannSeries,
    SolveError,
    Solver,
    Status,
    Stopping,
    fixed_point,
    root,
)
from implicitly.solvers import Problem
from oracle import KINDS, Array, Kind, iteration_matrix
from pairs import few_examples, in_pairs
from torch import Tensor

from .references import FORMS, LINEAR, Form, as_float64, norms, rounded

every_solver = pytest.mark.parametrize("solver", LINEAR.values(), ids=LINEAR.keys())
every_form = pytest.mark.parametrize("form", FORMS)
KRYLOV_OR_DENSE = {name: solver for name, solver in LINEAR.items() if name != "NeumannSeries"}


def affine(z: Tensor, M: Tensor, c: Tensor) -> Tensor:
    return torch.einsum("bij,bj->bi", M, z) + c


def solve_affine(
    form: Form, M: Array, c: Array, dtype: torch.dtype = torch.float64, **options: object
) -> tuple[Array, Array]:
    """The solver's `z = M z + c` for a batch of systems, and the residuals of that in float64."""
    M, c = rounded(M, dtype), rounded(c, dtype)
    tensors = torch.from_numpy(M).to(dtype), torch.from_numpy(c).to(dtype)
    z0 = torch.zeros(c.shape, dtype=dtype)
    if form == "fixed_point":
        solution = fixed_point(affine, z0, *tensors, linear=True, batch_dims=1, **options)  # type: ignore[arg-type]
    else:
        solution = root(
            lambda z, M, c: z - affine(z, M, c), z0, *tensors, linear=True, batch_dims=1, **options  # type: ignore[arg-type]
        )  # fmt: skip
    z = as_float64(solution.value)
    return z, np.einsum("bij,bj->bi", M, z) + c - z


def rounding(M: Array, z: Array, c: Array, dtype: torch.dtype) -> Array:
    """A bound on the rounding errors of one residual: n·eps of the sums of absolute values."""
    n = c.shape[1]
    sums = np.einsum("bij,bj->bi", np.abs(M), np.abs(z)) + np.abs(c) + np.abs(z)
    return (n + 3) * torch.finfo(dtype).eps * norms(sums)


def lapack(M: Array, c: Array) -> Array:
    """The solutions of `(I − M) z = c`."""
    return np.asarray(np.linalg.solve(np.eye(c.shape[1]) - M, c[:, :, None])[:, :, 0])


@in_pairs(solver=LINEAR, kind=KINDS, form=FORMS)
@few_examples()
@given(n=st.integers(1, 9), radius=st.sampled_from([0.3, 0.6, 0.9]), seed=st.integers(0, 1000))
def test_contractive_equations_end_at_the_solution_that_lapack_finds(
    solver: Solver, form: Form, kind: Kind, n: int, radius: float, seed: int
) -> None:
    M = np.stack([iteration_matrix(kind, n, radius, seed + i) for i in range(3)])
    c = np.random.default_rng(seed).standard_normal((3, n))
    z, residual = solve_affine(form, M, c, solver=solver)
    # The start is zero, so that the first residual, which the tolerance refers to, is c.
    allowed = 1e-10 * norms(c) + rounding(M, z, c, torch.float64)
    assert (norms(residual) <= allowed).all()
    inverse = np.linalg.norm(np.linalg.inv(np.eye(n) - M), 2, axis=(1, 2))
    assert (norms(z - lapack(M, c)) <= 1.01 * inverse * allowed).all()


@pytest.mark.parametrize("solver", KRYLOV_OR_DENSE.values(), ids=KRYLOV_OR_DENSE.keys())
@every_form
@few_examples()
@given(n=st.integers(2, 9), seed=st.integers(0, 1000))
def test_expanding_equations_are_solved_by_all_but_the_neumann_series(
    solver: Solver, form: Form, n: int, seed: int
) -> None:
    # Eigenvalues of M between −2.4 and 0: I − M is positive definite, so that restarted GMRES and
    # BiCGStab converge.
    root_of_M = iteration_matrix("symmetric", n, 0.9, seed)
    M = -3.0 * (root_of_M @ root_of_M)[None]
    c = np.random.default_rng(seed).standard_normal((1, n))
    z, residual = solve_affine(form, M, c, solver=solver)
    assert (norms(residual) <= 1e-10 * norms(c) + rounding(M, z, c, torch.float64)).all()
    with pytest.raises(SolveError, match="DIVERGED"):
        solve_affine(form, M - 2 * np.eye(n), c, solver=NeumannSeries())


@every_solver
@every_form
@few_examples()
@given(n=st.integers(1, 9), seed=st.integers(0, 1000))
def test_float32_meets_its_default_tolerance_on_well_conditioned_equations(
    solver: Solver, form: Form, n: int, seed: int
) -> None:
    M = np.stack([iteration_matrix("symmetric", n, 0.6, seed + i) for i in range(3)])
    c = np.random.default_rng(seed).standard_normal((3, n))
    z, residual = solve_affine(form, M, c, torch.float32, solver=solver)
    M, c = rounded(M, torch.float32), rounded(c, torch.float32)
    assert (norms(residual) <= 1e-6 * norms(c) + rounding(M, z, c, torch.float32)).all()


@every_solver
@pytest.mark.parametrize("seeds", [range(5), pytest.param(range(5, 20), marks=pytest.mark.long)])
def test_float32_meets_its_default_tolerance_on_every_contractive_equation(
    solver: Solver, seeds: range
) -> None:
    if isinstance(solver, GMRES) and solver.restart == 4:
        pytest.skip("four vectors are too few for these spectra")
    for seed in seeds:
        generator = np.random.default_rng(seed)
        M = generator.standard_normal((1, 60, 60))
        M *= 0.98 / np.abs(np.linalg.eigvals(M)).max()
        M, c = rounded(M, torch.float32), rounded(generator.standard_normal((1, 60)), torch.float32)
        z, residual = solve_affine("fixed_point", M, c, torch.float32, solver=solver)
        # Where ‖z‖ is many times ‖c‖, rounding of M z alone exceeds 1e-6 of ‖c‖.
        allowed = 1e-6 * norms(c) + rounding(M, z, c, torch.float32)
        assert (norms(residual) <= allowed).all()


@every_solver
@every_form
def test_a_rotation_scaled_by_nine_tenths_is_inverted(solver: Solver, form: Form) -> None:
    # Eigenvalues 0.9 e^{±iθ}: no real shift or scaling makes this symmetric.
    for angle in (0.5, np.pi / 2, 3.0):
        c, s = 0.9 * np.cos(angle), 0.9 * np.sin(angle)
        M = np.array([[[c, -s], [s, c]]])
        z, _ = solve_affine(form, M, np.array([[1.0, 2.0]]), solver=solver)
        # ‖(I − M)⁻¹‖ ≤ 10.
        np.testing.assert_allclose(
            z, lapack(M, np.array([[1.0, 2.0]])), rtol=0, atol=10 * 1e-10 * 2.3
        )


@pytest.mark.parametrize(
    ("name", "coupling"),
    [(name, 0.5) for name in LINEAR]
    # Restarted GMRES may stagnate where the field of values reaches around zero, as it does here.
    + [(name, 1.0) for name in LINEAR if name != "GMRES-restarted"],
)
def test_a_jordan_block_is_inverted_though_its_powers_first_grow(
    name: str, coupling: float
) -> None:
    n, solver = 8, LINEAR[name]
    M = (0.3 * np.eye(n) + coupling * np.diag(np.ones(n - 1), 1))[None]
    c = np.random.default_rng(0).standard_normal((1, n))
    z, residual = solve_affine("fixed_point", M, c, solver=solver)
    assert norms(residual)[0] <= 1e-10 * norms(c)[0] + rounding(M, z, c, torch.float64)[0]


@pytest.mark.parametrize(
    "build", [lambda p: GMRES(preconditioner=p), lambda p: BiCGStab(preconditioner=p)],
    ids=["GMRES", "BiCGStab"],
)  # fmt: skip
def test_an_exact_preconditioner_leaves_at_most_two_steps(
    build: Callable[[Callable[[Tensor], Tensor]], Solver],
) -> None:
    n = 20
    A = torch.from_numpy(iteration_matrix("mildly non-normal", n, 0.9, 1)) + 2 * torch.eye(n)
    inverse = torch.linalg.inv(A)
    b = torch.from_numpy(np.random.default_rng(1).standard_normal(n))

    def steps(solver: Solver) -> int:
        solution = root(
            lambda z: b - A @ z, torch.zeros(n, dtype=torch.float64), solver=solver, linear=True
        )
        answer = np.linalg.solve(A.numpy(), b.numpy())
        np.testing.assert_allclose(solution.value.numpy(), answer, rtol=0, atol=1e-8)
        return int(solution.steps)

    # ∂r/∂z = A for F = b − A z, as r = −F.
    assert steps(build(lambda v: v @ inverse.T)) <= 2
    plain = GMRES() if isinstance(build(torch.clone), GMRES) else BiCGStab()
    assert steps(plain) > 5


@pytest.mark.parametrize("dropping", [None, (True, True)], ids=["whole batch", "dropping"])
@pytest.mark.parametrize("kind", [GMRES, BiCGStab], ids=["GMRES", "BiCGStab"])
def test_a_preconditioner_may_hold_numbers_of_each_system(
    kind: type[GMRES] | type[BiCGStab], dropping: tuple[bool, bool] | None
) -> None:
    generator = np.random.default_rng(2)
    diagonal = np.geomspace(1, 100, 8)[:, None] * generator.uniform(1, 2, (8, 6))
    off = generator.standard_normal((8, 6, 6)) * np.linspace(0, 0.2, 8)[:, None, None]
    A = off + diagonal[:, :, None] * np.eye(6)
    c = generator.standard_normal((8, 6))
    scale = torch.from_numpy(diagonal)
    z, _ = solve_affine(
        "root", np.eye(6) - A, c, solver=kind(preconditioner=lambda v: -v / scale),
        batched_args=dropping,
    )  # fmt: skip
    np.testing.assert_allclose(z, np.linalg.solve(A, c[:, :, None])[:, :, 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("solver", LINEAR.values(), ids=LINEAR.keys())
@every_form
def test_a_nonlinear_problem_is_refused_with_a_type_error_that_names_what_would_do(
    solver: Solver, form: Form
) -> None:
    call = fixed_point if form == "fixed_point" else root
    with pytest.raises(
        TypeError, match=f"{type(solver).__name__} solves linear equations only"
    ) as e:
        call(torch.cos, torch.zeros(2), solver=solver)
    assert "Anderson" in str(e.value)


# A projection onto the first of two axes, 1 − 1 = 0 along it: (I − M) is singular.
SINGULAR = np.array([[[1.0, 0.0], [0.0, 0.5]]])


@every_solver
@every_form
def test_a_singular_consistent_equation_is_solved(solver: Solver, form: Form) -> None:
    z, residual = solve_affine(form, SINGULAR, np.array([[0.0, 1.0]]), solver=solver)
    assert norms(residual)[0] <= 1e-10
    # From a start at zero no solver leaves the range: the solution is that of minimum norm.
    np.testing.assert_allclose(z, [[0.0, 2.0]], rtol=0, atol=1e-9)


@every_solver
@every_form
def test_a_singular_inconsistent_equation_ends_with_a_status_that_says_so(
    solver: Solver, form: Form
) -> None:
    with pytest.raises(SolveError) as e:
        solve_affine(form, SINGULAR, np.array([[1.0, 1.0]]), solver=solver)
    solution = e.value.solution
    assert Status(int(solution.status)) in (
        Status.STALLED, Status.MAX_STEPS, Status.LINEAR_SOLVE_FAILED,
    )  # fmt: skip
    # Not even the best point can have a residual below the part of c outside the range, 1 / √2.
    assert solution.residual_norm.item() >= (1 - 1e-12) / np.sqrt(2)
    z = as_float64(solution.value)
    recomputed = norms(SINGULAR[0] @ z[0] + [1.0, 1.0] - z[0]) / np.sqrt(2)
    assert solution.residual_norm.item() == pytest.approx(recomputed, rel=1e-12)


def test_dense_lu_gives_the_least_squares_solution_of_an_inconsistent_equation() -> None:
    with pytest.raises(SolveError, match="LINEAR_SOLVE_FAILED") as e:
        solve_affine("root", SINGULAR, np.array([[1.0, 1.0]]), solver=DenseLU())
    best, *_ = np.linalg.lstsq(np.eye(2) - SINGULAR[0], np.array([1.0, 1.0]))
    np.testing.assert_allclose(as_float64(e.value.solution.value)[0], best, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [3, 12])
def test_gmres_without_restart_needs_at_most_as_many_steps_as_unknowns(n: int) -> None:
    A = torch.from_numpy(np.random.default_rng(n).standard_normal((n, n)))
    b = torch.ones(n, dtype=torch.float64)
    solution = root(
        lambda z: A @ z - b,
        torch.zeros(n, dtype=torch.float64),
        solver=GMRES(restart=n),
        linear=True,
    )
    assert int(solution.steps) <= n


def ill_conditioned(n: int, condition: float, symmetric: bool) -> Array:
    """Singular values spread evenly in their logarithm, the largest 1."""
    generator = np.random.default_rng(0)
    left, right = (np.linalg.qr(generator.standard_normal((n, n)))[0] for _ in range(2))
    values = np.logspace(0, -np.log10(condition), n)
    return left * values @ (left.T if symmetric else right.T)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_default_adjoint_of_hundreds_of_unknowns_survives_ill_conditioning(
    symmetric: bool, condition: float
) -> None:
    # Cycles of 40 steps stall or run out of steps for every one of these but the first.
    n = 300
    A = ill_conditioned(n, condition, symmetric)
    weight = np.random.default_rng(1).standard_normal(n)
    x = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    matrix = torch.from_numpy(A)
    z = root(lambda z, x: matrix @ z - x, torch.zeros(n, dtype=torch.float64), x, solver=DenseLU(),
             linear=True).value  # fmt: skip
    (gradient,) = torch.autograd.grad(z @ torch.from_numpy(weight), x)
    # The default relative tolerance of float64 is 1e-10, the norm of the inverse is the condition.
    error = np.linalg.norm(as_float64(gradient) - np.linalg.solve(A.T, weight))
    assert error <= condition * 1e-10 * np.linalg.norm(weight)


def test_default_cycles_grow_within_bounds_and_do_not_depend_on_the_batch() -> None:
    def cycles(batch: int, n: int, steps: int) -> list[int]:
        scale = torch.linspace(1.0, 2.0, n)
        problem = Problem(lambda z: 1 - scale * z, form="root", operator=lambda v: -scale * v)
        z, solver = torch.zeros(batch, n), GMRES()
        state, lengths = solver.init(problem, z, problem.residual(z)), [0]
        for _ in range(steps):
            state = solver.step(problem, state)
            if state.count == 1:
                lengths.append(0)
            lengths[-1] += 1
        return lengths[1:]

    assert cycles(1, 7, 20) == cycles(3, 7, 20) == [7, 7, 6]
    assert cycles(1, 128, 130) == cycles(2, 128, 130) == [128, 2]
    # Twice as long each time, up to the number of unknowns,
    assert cycles(1, 150, 425) == cycles(2, 150, 425) == [40, 80, 150, 150, 5]
    # 512,
    assert cycles(1, 2000, 40 + 80 + 160 + 320 + 513) == [40, 80, 160, 320, 512, 1]
    # or 2²¹ numbers; but 40 in any case.
    assert cycles(1, 2**15, 40 + 64 + 1) == [40, 64, 1]
    assert cycles(1, 2**17, 41) == [40, 1]


@pytest.mark.parametrize("n", [3, 6, 12])
def test_bicgstab_starts_anew_where_its_recursion_breaks_down(n: int) -> None:
    # The right-hand side is a left eigenvector: after one step the residual is orthogonal to it, the
    # correlation vanishes, and the recursion by itself would stand still.
    A = 0.3 * np.random.default_rng(n).standard_normal((n, n)) / np.sqrt(n) + np.eye(n)
    A[0] = b = np.eye(n)[0]
    matrix, right = torch.from_numpy(A), torch.from_numpy(b)
    solution = root(
        lambda z: matrix @ z - right, torch.zeros_like(right), solver=BiCGStab(), linear=True
    )
    # Without starting anew, what remains are steps of steepest descent: 6, 15 and 18 of them.
    assert int(solution.steps) <= n
    # Singular values of A within 1 ± 0.6.
    np.testing.assert_allclose(as_float64(solution.value), np.linalg.solve(A, b), rtol=0, atol=1e-9)


def test_the_krylov_basis_stays_orthogonal_on_ill_conditioned_equations() -> None:
    # One pass of Gram–Schmidt leaves κ² eps of the basis, here 1: many cycles instead of one.
    n = 20
    for seed in range(3):
        generator = np.random.default_rng(seed)
        left, right = (np.linalg.qr(generator.standard_normal((n, n)))[0] for _ in range(2))
        A = torch.from_numpy(left @ np.diag(np.geomspace(1, 1e-8, n)) @ right)
        b = A @ torch.from_numpy(generator.standard_normal(n))
        solution = root(
            lambda z, A=A, b=b: A @ z - b,
            torch.zeros(n, dtype=torch.float64), solver=GMRES(restart=n), linear=True,
        )  # fmt: skip
        assert int(solution.steps) <= n + 1


def test_gmres_minimises_the_residual_over_the_krylov_space_at_every_step() -> None:
    n, steps = 15, 7
    generator = np.random.default_rng(5)
    A, b = generator.standard_normal((n, n)), generator.standard_normal(n)
    for k in range(1, steps + 1):
        solution = root(
            lambda z: torch.from_numpy(A) @ z - torch.from_numpy(b),
            torch.zeros(n, dtype=torch.float64),
            solver=GMRES(), linear=True, stopping=Stopping(max_steps=k), on_failure="accept",
        )  # fmt: skip
        krylov = np.stack([np.linalg.matrix_power(A, i) @ b for i in range(k)], axis=1)
        krylov = np.linalg.qr(krylov)[0]
        weights, *_ = np.linalg.lstsq(A @ krylov, b)
        least = np.linalg.norm(b - A @ krylov @ weights) / np.sqrt(n)
        # The monomial basis of the reference loses digits: its condition number is below 1e6.
        assert solution.residual_norm.item() == pytest.approx(least, rel=1e-9)


def test_dense_lu_takes_more_unknowns_than_are_differentiated_at_once() -> None:
    n = 100
    M, c = iteration_matrix("symmetric", n, 0.9, 1)[None], np.ones((1, n))
    z, _ = solve_affine("fixed_point", M, c, solver=DenseLU())
    np.testing.assert_allclose(z, lapack(M, c), rtol=0, atol=1e-8)
