"""The work that a solve does: limits, looks, and systems that are dropped, held or waiting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from implicitly import (
    GMRES,
    Anderson,
    BiCGStab,
    Broyden,
    DenseLU,
    FixedPointIteration,
    NeumannSeries,
    Solution,
    Solver,
    SparseLU,
    Status,
    Stopping,
    fixed_point,
)
from implicitly.solvers import Problem, solve
from implicitly.solvers.interface.tolerance import Tolerance
from pairs import in_pairs
from torch import Tensor

from .driven import (
    DRIVEN,
    affine,
    affine_equation,
    every_form,
    every_linear_solver,
    every_nonlinear_solver,
    every_solver,
    steps_towards_tolerance,
)
from .references import (
    FORMS,
    Form,
    TanhSystems,
    solve_form,
    tanh_map,
)


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
        largest = max(largest, float(z[1].detach().abs().max()))
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
