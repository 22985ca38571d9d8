"""What every solve owes its caller: a status, the truth about the residual, and the best iterate."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    GMRES,
    Anderson,
    BiCGStab,
    Broyden,
    DenseLU,
    FixedPointIteration,
    NeumannSeries,
    Newton,
    NewtonKrylov,
    Solution,
    SolveError,
    Solver,
    SolveWarning,
    SparseLU,
    Status,
    Stopping,
    fixed_point,
    root,
)
from implicitly.solvers import Problem, solve
from implicitly.solvers.interface.tolerance import Tolerance
from pairs import few_examples, in_pairs
from torch import Tensor

from .references import (
    FORMS,
    LINEAR,
    STEPPED,
    Form,
    TanhSystems,
    as_float64,
    norms,
    solve_form,
    tanh_map,
)

# What runs whole is not stepped here; see test_whole_solvers.py.
DRIVEN = {**STEPPED, **LINEAR}
every_solver = pytest.mark.parametrize("solver", DRIVEN.values(), ids=DRIVEN.keys())
every_nonlinear_solver = pytest.mark.parametrize("solver", STEPPED.values(), ids=STEPPED.keys())
every_linear_solver = pytest.mark.parametrize("solver", LINEAR.values(), ids=LINEAR.keys())
every_form = pytest.mark.parametrize("form", FORMS)

ZERO = torch.zeros((), dtype=torch.float64)
ONE = torch.ones((), dtype=torch.float64)


def status_of(solution: Solution) -> Status:
    return Status(int(solution.status))


def affine_equation(n: int, radius: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    M = generator.standard_normal((n, n))
    M *= radius / np.abs(np.linalg.eigvals(M)).max()
    return torch.from_numpy(M), torch.from_numpy(generator.standard_normal(n))


def affine(z: Tensor, M: Tensor, c: Tensor) -> Tensor:
    return M @ z + c


def steps_towards_tolerance(solver: Solver, form: Form, **options: Any) -> Solution:
    """An equation that every solver solves, affine for those that need it."""
    if solver.linear_only:
        M, c = affine_equation(12, 0.8)
        return solve_form(
            form, affine, torch.zeros_like(c), M, c, solver=solver, linear=True, **options
        )
    W, x = TanhSystems.draw(1, 12, 0.8, seed=0).tensors(torch.float64)
    return solve_form(
        form, tanh_map, torch.zeros(1, 12, dtype=torch.float64), W, x, solver=solver, **options
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


# --- Failure policy -----------------------------------------------------------------------------


def failing(policy: str) -> Solution:
    slope = torch.tensor([[0.5, 0.5], [3.0, 0.5], [-1.0, 3.0]], dtype=torch.float64)
    return fixed_point(
        lambda z: slope * z + 1, torch.zeros_like(slope), solver=FixedPointIteration(),
        batch_dims=2, on_failure=policy,  # type: ignore[arg-type]
    )  # fmt: skip


def test_an_error_says_which_systems_failed_how_and_what_to_try() -> None:
    with pytest.raises(SolveError) as caught:
        failing("raise")
    text = str(caught.value)
    for part in (
        "FixedPointIteration",
        "3 of 6 systems failed",
        "system (1, 0): DIVERGED after 21 steps",
        "system (2, 0): STALLED after 100 steps",
        "system (2, 1): DIVERGED",
        "residual 1, tolerance",
        "DIVERGED: use a solver that needs no contraction",
        "STALLED: loosen the tolerance",
        'on_failure="accept"',
    ):
        assert part in text
    solution = caught.value.solution
    assert solution.status.shape == (3, 2)
    assert solution.value[0].tolist() == pytest.approx([2.0, 2.0], rel=1e-9)


def test_an_error_carries_the_value_in_the_structure_of_the_start() -> None:
    with pytest.raises(SolveError) as caught:
        fixed_point(lambda z: {"a": 3 * z["a"] + 1}, {"a": ZERO}, solver=FixedPointIteration())
    assert caught.value.solution.value == {"a": ZERO}
    with pytest.raises(SolveError) as caught:
        fixed_point(lambda z: 3 * z + 1, ZERO, solver=FixedPointIteration())
    assert isinstance(caught.value.solution.value, Tensor)


def test_an_error_about_many_systems_lists_a_few() -> None:
    with pytest.raises(SolveError, match="20 of 20 systems failed") as caught:
        fixed_point(
            lambda z: 3 * z + 1, torch.zeros(20), solver=FixedPointIteration(), batch_dims=1
        )
    assert "and 15 more" in str(caught.value)


def test_a_warning_says_the_same_and_the_solution_comes_back() -> None:
    with pytest.warns(SolveWarning, match="3 of 6 systems failed"):
        solution = failing("warn")
    assert int(solution.converged.sum()) == 3


def test_accepting_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = failing("accept")
    assert int(solution.converged.sum()) == 3


def test_a_call_raises_unless_told_otherwise() -> None:
    with pytest.raises(SolveError):
        fixed_point(lambda z: 3 * z + 1, ZERO, solver=FixedPointIteration())


# --- Trace, callback, limits --------------------------------------------------------------------


@every_solver
@every_form
def test_the_trace_holds_the_residual_norms_of_every_check(solver: Solver, form: Form) -> None:
    solution = steps_towards_tolerance(solver, form, trace=True)
    trace = solution.trace
    assert trace is not None
    steps = int(solution.steps)
    assert trace.shape == (steps + 1, 1)
    # Norms from a recursion are confirmed in the end, and may differ in their last digits.
    assert solution.residual_norm.item() == pytest.approx(trace[-1, 0], rel=1e-3)
    assert steps_towards_tolerance(solver, form).trace is None


def test_the_trace_of_plain_iteration_is_that_of_the_formula() -> None:
    factors = torch.tensor([0.5, 0.1], dtype=torch.float64)
    solution = fixed_point(
        lambda z: factors * z, torch.ones(2, dtype=torch.float64), solver=FixedPointIteration(),
        batch_dims=1, stopping=Stopping(rtol=0.0, atol=1e-3), trace=True,
    )  # fmt: skip
    assert solution.trace is not None
    steps = np.arange(len(solution.trace))
    np.testing.assert_allclose(solution.trace[:, 0], 0.5 * 0.5**steps, rtol=1e-14)
    np.testing.assert_allclose(solution.trace[:4, 1], 0.9 * 0.1 ** steps[:4], rtol=1e-14)
    assert np.isnan(solution.trace[4:, 1]).all()


@every_solver
@every_form
def test_a_callback_sees_every_check_and_may_end_the_solve(solver: Solver, form: Form) -> None:
    last = 1 if isinstance(solver, (DenseLU, SparseLU, Newton, NewtonKrylov)) else 4
    seen: list[int] = []

    def callback(step: int, norms: np.ndarray[Any, Any]) -> bool:
        assert norms.shape == (1,)
        seen.append(step)
        return step == last

    solution = steps_towards_tolerance(
        solver, form, callback=callback, on_failure="accept", stopping=Stopping(rtol=1e-30, atol=0)
    )
    assert seen == list(range(last + 1))
    assert status_of(solution) == Status.MAX_STEPS
    assert int(solution.steps) == last
    # The same iterate as a limit on steps gives.
    limited = steps_towards_tolerance(
        solver, form, on_failure="accept",
        stopping=Stopping(rtol=1e-30, atol=0, max_steps=last),
    )  # fmt: skip
    assert torch.equal(solution.value, limited.value)
    assert torch.equal(solution.residual_norm, limited.residual_norm)


@in_pairs(solver=DRIVEN, form=FORMS, limit=(3, 6))
def test_a_limit_on_evaluations_ends_the_solve_within_a_step(
    solver: Solver, form: Form, limit: int
) -> None:
    counted = 0

    def f(z: Tensor, *args: Tensor) -> Tensor:
        nonlocal counted
        counted += 1
        return affine(z, *args)

    M, c = affine_equation(12, 0.95)
    solution = solve_form(
        form, f, torch.zeros_like(c), M, c, solver=solver, linear=True, on_failure="accept",
        stopping=Stopping(max_evaluations=limit, rtol=1e-30, atol=0.0),
    )  # fmt: skip
    assert not bool(solution.converged)
    # One step of BiCGStab makes two products, its confirmation one more evaluation; Newton's one
    # makes an evaluation for the Jacobian and one for each trial of a line search, of which there may
    # be many where all is rounding already.
    searched = getattr(solver, "globalisation", solver)
    allowed = limit + 2 + getattr(searched, "max_trials", 1)
    assert solution.evaluations <= allowed


@every_nonlinear_solver
@every_form
def test_evaluations_are_counted_as_they_happen(solver: Solver, form: Form) -> None:
    calls = 0

    def f(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return tanh_map(z, W, x)

    systems = TanhSystems.draw(2, 5, 0.8, seed=4)
    solution = solve_form(
        form, f, torch.zeros(2, 5, dtype=torch.float64), *systems.tensors(torch.float64),
        solver=solver, batch_dims=1,
    )  # fmt: skip
    assert solution.evaluations == calls


@in_pairs(solver=DRIVEN, check_every=(1, 4, 10), form=FORMS)
def test_looking_less_often_converges_to_the_same_value(
    solver: Solver, form: Form, check_every: int
) -> None:
    often = steps_towards_tolerance(solver, form)
    seldom = steps_towards_tolerance(solver, form, stopping=Stopping(check_every=check_every))
    assert bool(seldom.converged)
    late = int(seldom.steps) - int(often.steps)
    assert late < check_every + 1
    assert int(seldom.steps) % check_every == 0
    # Both are within tolerance of the root: 1e-10 of norms below 12, over 1 − 0.8.
    error = torch.linalg.vector_norm(seldom.value - often.value).item()
    assert error <= 2 * 1e-10 * 12 / (1 - 0.8)


@every_solver
@every_form
def test_dropping_finished_systems_changes_the_work_and_not_the_answers(
    solver: Solver, form: Form
) -> None:
    scales = np.array([0.05, 0.1, 0.2, 0.3, 0.9, 0.95])
    generator = np.random.default_rng(3)
    M = generator.standard_normal((6, 5, 5))
    M *= (scales / np.linalg.norm(M, 2, axis=(1, 2)))[:, None, None]
    W, x = torch.from_numpy(M), torch.from_numpy(generator.standard_normal((6, 5)))
    rows = 0

    def f(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        nonlocal rows
        rows += z.shape[0]
        # Products of each system alone: the same arithmetic whatever the batch.
        inner = torch.stack([w @ v for w, v in zip(W, z, strict=True)]) + x
        return inner if solver.linear_only else torch.tanh(inner)

    def run(flags: tuple[bool, bool] | None) -> tuple[Solution, int]:
        nonlocal rows
        rows = 0
        return solve_form(
            form, f, torch.zeros(6, 5, dtype=torch.float64), W, x, solver=solver, batch_dims=1,
            linear=solver.linear_only, batched_args=flags,
        ), rows  # fmt: skip

    whole, work = run(None)
    dropping, less_work = run((True, True))
    assert bool(whole.converged.all())
    assert torch.equal(dropping.status, whole.status)
    assert torch.equal(dropping.steps, whole.steps)
    # Batched products of other sizes may be summed in another order: rounding, amplified by at
    # most 1 / (1 − 0.95) in the answer.
    np.testing.assert_allclose(
        dropping.value.numpy(), whole.value.numpy(), rtol=0, atol=20 * 5 * 2.0**-52 * 10
    )
    if isinstance(solver, (FixedPointIteration, Anderson, Broyden)):
        assert less_work < work


def test_evaluations_of_dropped_systems_do_not_happen() -> None:
    sizes = []

    def f(z: Tensor, slope: Tensor) -> Tensor:
        sizes.append(z.shape[0])
        return slope * z + 1

    slope = torch.tensor([0.1, 0.1, 0.1, 0.9], dtype=torch.float64)
    fixed_point(
        f, torch.zeros(4, dtype=torch.float64), slope, solver=FixedPointIteration(),
        batch_dims=1, batched_args=(True,),
    )  # fmt: skip
    assert sizes[0] == 4
    assert sizes[-1] == 1


@every_linear_solver
def test_products_of_dropped_systems_do_not_happen(solver: Solver) -> None:
    scales = torch.tensor([0.0, 0.0, 0.0, 0.9], dtype=torch.float64)
    M = scales[:, None, None] * torch.from_numpy(affine_equation(6, 1.0)[0].numpy())
    c = torch.ones(4, 6, dtype=torch.float64)
    sizes = []

    def restricted(index: Tensor) -> Problem:
        def operator(v: Tensor) -> Tensor:
            sizes.append(len(v))
            return torch.einsum("bij,bj->bi", M[index], v)

        def transpose(u: Tensor) -> Tensor:
            return torch.einsum("bij,bi->bj", M[index], u)

        return Problem(
            lambda z: operator(z) + c[index], operator=operator, transpose=transpose,
            restrict=restricted,
        )  # fmt: skip

    result = solve(restricted(torch.arange(4)), solver, torch.zeros_like(c))
    assert (result.status == Status.CONVERGED).all()
    if not isinstance(solver, (DenseLU, SparseLU)):  # They have formed their matrices by then.
        assert 1 in sizes


def test_a_finished_system_is_evaluated_at_its_answer_from_then_on() -> None:
    # The second system would run off to infinity; the function need never see that.
    largest = 0.0

    def f(z: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, float(z[1].abs().max()))
        return torch.stack([0.99 * z[0] + 1, 10 * z[1] + 1])

    fixed_point(
        f, torch.zeros(2, dtype=torch.float64), solver=FixedPointIteration(), batch_dims=1,
        on_failure="accept",
    )  # fmt: skip
    # Divergence is seen at 1e10 times the first residual, and one more step may be under way.
    assert largest <= 1e12


def test_a_problem_may_be_solved_again_from_elsewhere() -> None:
    problem = Problem(torch.cos)
    first = torch.tensor([[0.739], [5.0]], dtype=torch.float64)
    solve(problem, FixedPointIteration(), first)
    second = solve(problem, FixedPointIteration(), torch.full((2, 1), 3.0, dtype=torch.float64))
    np.testing.assert_allclose(second.z.numpy(), 0.7390851332151607, rtol=0, atol=1e-9)


def test_defaults_depend_on_the_dtype_as_documented() -> None:
    for dtype, rtol in (
        (torch.float64, 1e-10),
        (torch.float32, 1e-6),
        (torch.float16, 2.0**-8),
        (torch.bfloat16, 2.0**-5),
    ):
        assert Stopping().relative(dtype) == rtol
        z = torch.zeros(1, 1, dtype=dtype)
        fixed_point = Tolerance.of(Problem(torch.cos), Stopping(), z)
        assert fixed_point.begun(np.array([3.0])).atol == 3 * torch.finfo(dtype).eps ** 2
        root = Tolerance.of(Problem(torch.cos, form="root"), Stopping(), z)
        assert root.begun(np.array([3.0])).atol == 0.0


@pytest.mark.parametrize("solver", [Anderson(), Broyden(), GMRES()], ids=lambda s: type(s).__name__)
def test_a_solver_is_not_changed_by_solving(solver: Solver) -> None:
    before = repr(solver)
    first = steps_towards_tolerance(solver, "fixed_point")
    again = steps_towards_tolerance(solver, "fixed_point")
    assert repr(solver) == before
    assert torch.equal(first.value, again.value)
    assert first.counts == again.counts


@pytest.mark.parametrize("dropping", [False, True], ids=["parked", "dropped"])
def test_systems_that_are_held_take_no_part_and_change_no_bit_of_the_others(dropping: bool) -> None:
    factors = torch.tensor([[0.9], [0.5], [0.2], [0.7]], dtype=torch.float64)
    seen: list[Tensor] = []

    def problem(factors: Tensor) -> Problem:
        def f(z: Tensor) -> Tensor:
            seen.append(z)
            return factors * torch.cos(z)

        def restrict(index: Tensor) -> Problem:
            return problem(factors[index])

        return Problem(f, restrict=restrict if dropping else None)

    start = torch.linspace(0, 1, 4, dtype=torch.float64).unsqueeze(1)
    everyone = solve(problem(factors), Anderson(), start)
    seen.clear()
    held = np.array([True, False, False, True])
    result = solve(problem(factors), Anderson(), start, held=held)
    assert torch.equal(result.z[held], start[held])
    assert result.status.tolist() == [Status.MAX_STEPS, 1, 1, Status.MAX_STEPS]
    assert result.steps[held].tolist() == [0, 0]
    assert torch.equal(result.z[~held], everyone.z[~held])
    assert result.steps[~held].tolist() == everyone.steps[~held].tolist()
    for z in seen[1:]:
        assert len(z) == 2 if dropping else torch.equal(z[held], start[held])


def test_a_time_step_that_waits_for_those_before_it_does_not_stall() -> None:
    length = 60

    def f(z: Tensor) -> Tensor:
        before = torch.cat((torch.ones(1, 1).to(z), z[:-1]))
        # Swings, with a residual that never falls, until the time step before it has arrived.
        return torch.where((before - 1).abs() < 1e-3, torch.ones_like(z), -z)

    start = torch.full((length, 1), 0.5, dtype=torch.float64)
    result = solve(
        Problem(f), FixedPointIteration(), start, Stopping(rtol=1e-6, patience=10), sequence=length
    )
    assert result.status.tolist() == [Status.CONVERGED] * length
    assert result.steps.tolist()[-1] == length


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("solver", [GMRES(), BiCGStab(), NeumannSeries()], ids=repr)
def test_a_recursion_that_rounding_leads_astray_returns_nothing_worse_than_the_start(
    solver: Solver, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(60, 60, generator=generator, dtype=torch.float64) for _ in range(2))
    values = torch.logspace(0, -8, 60, dtype=torch.float64)
    matrix = torch.linalg.qr(left)[0] * values @ torch.linalg.qr(right)[0]

    def operator(v: Tensor) -> Tensor:
        return (v.bfloat16() @ matrix.mT.bfloat16()).to(v)

    b = torch.randn(1, 60, generator=generator, dtype=torch.float64)
    problem = Problem(lambda z: operator(z) + b, form="root", operator=operator)
    result = solve(problem, solver, torch.zeros_like(b), Stopping(rtol=1e-6, max_steps=500))
    found = problem.residual(result.z).norm() / 60**0.5
    assert result.residual_norm[0] == pytest.approx(found.item(), rel=1e-12)
    assert found <= b.norm() / 60**0.5
