"""What every solve owes its caller: a status, the truth about the residual, and the best iterate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    BiCGStab,
    DenseLU,
    FixedPointIteration,
    NeumannSeries,
    Newton,
    NewtonKrylov,
    Solver,
    SparseLU,
    Status,
    Stopping,
    fixed_point,
    root,
)
from implicitly.solvers import Problem, solve
from pairs import few_examples, in_pairs
from torch import Tensor

from .driven import (
    DRIVEN,
    ONE,
    ZERO,
    affine,
    affine_equation,
    every_form,
    every_linear_solver,
    every_nonlinear_solver,
    every_solver,
    status_of,
    steps_towards_tolerance,
)
from .references import (
    FORMS,
    Form,
    TanhSystems,
    as_float64,
    norms,
    solve_form,
)

# --- Status -------------------------------------------------------------------------------------


@every_solver
@every_form
def test_a_limit_of_one_step_ends_as_max_steps(solver: Solver, form: Form) -> None:
    if isinstance(solver, (DenseLU, SparseLU)):
        pytest.skip("solves in one step")
    solution = steps_towards_tolerance(
        solver, form, stopping=Stopping(max_steps=1), on_failure="accept"
    )
    assert status_of(solution) == Status.MAX_STEPS
    assert int(solution.steps) == 1


@every_solver
@every_form
def test_no_steps_at_all_may_be_asked_for(solver: Solver, form: Form) -> None:
    solution = steps_towards_tolerance(
        solver, form, stopping=Stopping(max_steps=0), on_failure="accept"
    )
    assert status_of(solution) == Status.MAX_STEPS
    assert int(solution.steps) == 0
    assert not solution.value.any()


@pytest.mark.parametrize(
    "solver", [FixedPointIteration(), NeumannSeries()], ids=lambda s: type(s).__name__
)
@every_form
def test_an_iteration_that_expands_ends_as_diverged(solver: Solver, form: Form) -> None:
    solution = solve_form(
        form, lambda z: 3 * z + 1, ZERO, solver=solver, linear=True, on_failure="accept"
    )
    assert status_of(solution) == Status.DIVERGED
    # The residual grows by 3 a step, and 3^21 is the first power beyond the limit of 1e10.
    assert int(solution.steps) == 21
    assert solution.value.item() == 0.0


@pytest.mark.parametrize("divergence", [1e2, 1e4])
def test_the_divergence_limit_is_an_option(divergence: float) -> None:
    solution = fixed_point(
        lambda z: 10 * z + 1, ZERO, solver=FixedPointIteration(),
        stopping=Stopping(divergence=divergence), on_failure="accept",
    )  # fmt: skip
    assert int(solution.steps) == round(np.log10(divergence)) + 1


@every_nonlinear_solver
@every_form
def test_an_equation_that_turns_nan_ends_as_non_finite(solver: Solver, form: Form) -> None:
    # √(1 − z) is NaN beyond 1, and each solver's first step from 0 goes beyond.
    def f(z: Tensor) -> Tensor:
        return torch.sqrt(1 - z) + 1.5 + 10 * z

    solution = solve_form(
        form, f, ZERO - 0.01, solver=solver, on_failure="accept", stopping=Stopping(max_steps=40)
    )
    assert bool(torch.isfinite(solution.value))
    assert bool(torch.isfinite(solution.residual_norm))
    if isinstance(solver, FixedPointIteration):
        assert status_of(solution) == Status.NON_FINITE
    else:
        # Line searches and extrapolation may step back, and then find the root near −0.29.
        assert status_of(solution) != Status.RUNNING


@every_solver
@every_form
def test_a_residual_that_is_nan_at_the_start_ends_as_non_finite_there(
    solver: Solver, form: Form
) -> None:
    start = torch.ones(2, dtype=torch.float64)
    solution = solve_form(
        form, lambda z: z + torch.nan, start, solver=solver, linear=True, on_failure="accept"
    )
    assert status_of(solution) == Status.NON_FINITE
    assert torch.equal(solution.value, start)
    assert not bool(torch.isfinite(solution.residual_norm))


def test_an_iteration_that_goes_round_in_circles_ends_as_stalled() -> None:
    solution = fixed_point(
        lambda z: -z + 1, ZERO, solver=FixedPointIteration(), on_failure="accept"
    )
    assert status_of(solution) == Status.STALLED
    assert int(solution.steps) == Stopping().patience


def test_patience_is_an_option() -> None:
    solution = fixed_point(
        lambda z: -z + 1, ZERO, solver=FixedPointIteration(), on_failure="accept",
        stopping=Stopping(patience=7),
    )  # fmt: skip
    assert int(solution.steps) == 7


@pytest.mark.parametrize(
    "solver", [NewtonKrylov(), NewtonKrylov(linear_solver=BiCGStab())], ids=str
)
def test_a_jacobian_that_vanishes_ends_as_linear_solve_failed(solver: Solver) -> None:
    solution = root(lambda z: z**2 + 1, ZERO, solver=solver, on_failure="accept")
    assert status_of(solution) == Status.LINEAR_SOLVE_FAILED


def test_a_jacobian_that_is_not_finite_ends_as_linear_solve_failed() -> None:
    solution = root(lambda z: torch.sqrt(z.abs()) + 1, ZERO, solver=Newton(), on_failure="accept")
    assert status_of(solution) == Status.LINEAR_SOLVE_FAILED


def test_a_minimum_of_the_residual_that_is_no_root_ends_as_stalled_for_newton() -> None:
    solution = root(lambda z: z**2 + 1, ONE, solver=Newton(), on_failure="accept")
    assert status_of(solution) in (Status.STALLED, Status.MAX_STEPS)
    assert solution.residual_norm.item() >= 1.0


def test_systems_of_one_batch_end_each_in_its_own_way() -> None:
    slope = torch.tensor([0.5, 3.0, -1.0, torch.nan, 0.9999], dtype=torch.float64)
    solution = fixed_point(
        lambda z, slope: slope * z + 1, torch.zeros_like(slope), slope, batch_dims=1,
        solver=FixedPointIteration(), on_failure="accept", stopping=Stopping(max_steps=150),
    )  # fmt: skip
    assert [Status(code).name for code in solution.status.tolist()] == [
        "CONVERGED", "DIVERGED", "STALLED", "NON_FINITE", "MAX_STEPS",
    ]  # fmt: skip
    assert solution.steps.tolist()[1:] == [21, 100, 0, 150]


@in_pairs(solver=DRIVEN, form=FORMS, dtype=(torch.float64, torch.float32))
def test_a_tolerance_below_rounding_ends_soon_as_stalled(
    solver: Solver, form: Form, dtype: torch.dtype
) -> None:
    M, c = affine_equation(10, 0.5)
    M, c = M.to(dtype), c.to(dtype)
    stopping = Stopping(rtol=1e-30, atol=0.0, max_steps=100_000)
    solution = solve_form(
        form, affine, torch.zeros_like(c), M, c, solver=solver, linear=True, stopping=stopping,
        on_failure="accept",
    )  # fmt: skip
    # A residual that is zero to the last bit does meet any tolerance.
    if solution.residual_norm.item() > 0:
        assert status_of(solution) == Status.STALLED
    # 0.5^53 is rounding, so that fewer than 60 plain steps lead there, and the patience is 100. A series
    # has a residual of its own that falls on: 0.5^100 is 1e-30, before an evaluation ends it.
    assert int(solution.steps) <= (200 if isinstance(solver, NeumannSeries) else 160)
    answer = np.linalg.solve(np.eye(10) - as_float64(M), as_float64(c))
    error = np.linalg.norm(as_float64(solution.value) - answer) / np.linalg.norm(answer)
    # Condition times rounding.
    condition = np.linalg.cond(np.eye(10) - as_float64(M))
    assert error <= 20 * condition * torch.finfo(dtype).eps


# --- Residual and best iterate ------------------------------------------------------------------


@every_solver
@every_form
@few_examples()
@given(n=st.integers(1, 5), limit=st.integers(0, 12), seed=st.integers(0, 100))
def test_the_residual_reported_is_that_of_the_value_returned(
    solver: Solver, form: Form, n: int, limit: int, seed: int
) -> None:
    systems = TanhSystems.draw(3, n, 1.5, seed)
    W, x = systems.tensors(torch.float64)

    def f(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        inner = torch.einsum("bij,bj->bi", W, z) + x
        return inner if solver.linear_only else torch.tanh(inner)

    solution = solve_form(
        form, f, torch.zeros(3, n, dtype=torch.float64), W, x, solver=solver, batch_dims=1,
        linear=solver.linear_only, stopping=Stopping(max_steps=limit), on_failure="accept",
    )  # fmt: skip
    z = as_float64(solution.value)
    inner = np.einsum("bij,bj->bi", systems.W, z) + systems.x
    residual = (inner if solver.linear_only else np.tanh(inner)) - z
    # Both are rounded: see `rounding`.
    slack = 2 * systems.rounding(z, torch.float64)
    assert (
        np.abs(as_float64(solution.residual_norm) * np.sqrt(n) - norms(residual)) <= slack
    ).all()


@every_nonlinear_solver
@every_form
def test_on_failure_the_iterate_with_the_smallest_residual_seen_comes_back(
    solver: Solver, form: Form
) -> None:
    # Every solver leaves the neighbourhood of the start: the map has no fixed point.
    seen: list[tuple[float, float]] = []

    def f(z: Tensor) -> Tensor:
        return z + 1 + z**2 * torch.exp(-z) + 0.1 * torch.sin(5 * z)

    start = torch.full((), -0.3, dtype=torch.float64)
    solution = solve_form(
        form, f, start, solver=solver, on_failure="accept", stopping=Stopping(max_steps=15),
        callback=lambda step, norms: seen.append((step, float(norms[0]))),
    )  # fmt: skip
    assert not bool(solution.converged)
    best = min(norm for _, norm in seen if np.isfinite(norm))
    assert solution.residual_norm.item() == best
    z = solution.value.item()
    recomputed = abs(1 + z**2 * np.exp(-z) + 0.1 * np.sin(5 * z))
    # Rounding of z − f(z), relative to z.
    assert recomputed == pytest.approx(best, rel=1e-12, abs=1e-14 * (1 + abs(z)))


@every_linear_solver
@every_form
def test_nan_never_overwrites_the_best_iterate(solver: Solver, form: Form) -> None:
    M, c = affine_equation(8, 0.9)
    products = 0

    def operator(v: Tensor) -> Tensor:
        nonlocal products
        products += 1
        return v @ M.T if products < 4 else v * torch.nan

    def function(z: Tensor) -> Tensor:
        return z @ M.T + c

    problem = Problem(function, form, operator=operator, transpose=lambda u: u @ M)
    result = solve(problem, solver, torch.zeros(1, 8, dtype=torch.float64))
    assert Status(int(result.status[0])) in (Status.NON_FINITE, Status.LINEAR_SOLVE_FAILED)
    assert bool(torch.isfinite(result.z).all())
    value = as_float64(result.z)[0]
    image = M.numpy() @ value + c.numpy()
    residual = np.linalg.norm(image - value if form == "fixed_point" else image) / np.sqrt(8)
    assert result.residual_norm[0] == pytest.approx(residual, rel=1e-12)


def test_what_is_returned_is_the_first_iterate_that_met_the_tolerance() -> None:
    calls = []

    def f(z: Tensor) -> Tensor:
        calls.append(z.clone())
        return 0.5 * z

    start = torch.tensor([1.0, 1e-6], dtype=torch.float64)
    solution = fixed_point(
        f, start, solver=FixedPointIteration(), batch_dims=1,
        stopping=Stopping(rtol=0.0, atol=1e-9),
    )  # fmt: skip
    # r = −z/2: 2^-29 is the first power below 2e-9, and 2^-9 below 2e-3.
    assert solution.steps.tolist() == [29, 9]
    assert solution.value.tolist() == [2.0**-29, 1e-6 * 2.0**-9]
