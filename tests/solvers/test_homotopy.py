"""Homotopy continuation: the path's own equation, folds, ends, and what cannot be reached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from implicitly import (
    Homotopy,
    NewtonKrylov,
    Status,
    Stopping,
    fixed_point,
    problems,
    root,
)
from implicitly.implicit.equations.equation import GivenEquation
from implicitly.implicit.equations.flat import flat_problem
from implicitly.implicit.equations.layout import Layout
from implicitly.solvers import Problem
from implicitly.solvers.composed import homotopy
from implicitly.solvers.composed.augmented import KINDS, Kind, Path, augmented
from torch import Tensor

every_kind = pytest.mark.parametrize("kind", KINDS)


def cubic(z: Tensor) -> Tensor:
    return z**3 - 3 * z - 5


def problem_of(F: Any, z: Tensor) -> Problem:
    equation = GivenEquation(
        given=lambda args: lambda z: (F(z[0]),), form="root", batch_dims=1
    )  # fmt: skip
    return flat_problem(equation, Layout.of((z,), 1), ())


@every_kind
def test_products_with_the_jacobian_of_a_path_are_those_of_differences(kind: Kind) -> None:
    generator = torch.Generator().manual_seed(0)
    batch, n = 3, 4

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def F(z: Tensor) -> Tensor:
        return torch.sin(z) * z.roll(1, -1) + z**2

    start = draw(batch, n)
    problem = problem_of(F, start)
    first = problem.residual(start)
    path = Path(
        kind, start, first, torch.linalg.vector_norm(first, dim=1, keepdim=True),
        draw(batch, 1), draw(batch, 1).abs(),
    )  # fmt: skip
    equation = augmented(problem, path, draw(batch, n + 1), draw(batch, n + 1))
    w, v, u = draw(batch, n + 1), draw(batch, n + 1), draw(batch, n + 1)
    linearization = equation.linearization(w)
    assert linearization.residual is not None
    torch.testing.assert_close(linearization.residual, equation.residual(w))
    h = 1e-6
    difference = (equation.residual(w + h * v) - equation.residual(w - h * v)) / (2 * h)
    product = linearization.jvp(v)
    # Truncation h² and rounding 1e-16 / h, times numbers of the order of ten.
    torch.testing.assert_close(product, difference, rtol=0, atol=1e-7)
    matrix = linearization.jacobian(w)
    torch.testing.assert_close(torch.einsum("bij,bj->bi", matrix, v), product)
    torch.testing.assert_close(
        torch.einsum("bij,bi->bj", matrix, u), linearization.vjp(u), rtol=1e-12, atol=1e-12
    )


@every_kind
def test_a_path_begins_at_the_start_and_ends_at_a_solution(kind: Kind) -> None:
    start = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    solved = torch.ones(1, 2, dtype=torch.float64)
    problem = problem_of(lambda z: z**2 - 1, start)
    first = problem.residual(start)
    one = torch.ones(1, 1, dtype=torch.float64)
    path = Path(kind, start, first, 2 * one, 0.5 * one, 3 * one)

    def at(z: Tensor, mu: float) -> Tensor:
        w = torch.cat(((z - start) / 3, mu * one), dim=1)
        return path.value(w, problem.residual(path.position(w)))

    torch.testing.assert_close(at(start, 1.0), torch.zeros(1, 2).double(), rtol=0, atol=1e-15)
    torch.testing.assert_close(at(solved, 0.0), torch.zeros(1, 2).double(), rtol=0, atol=1e-15)
    assert at(solved, 1.0).abs().max() > 0.1


def test_the_newton_homotopy_passes_two_folds() -> None:
    # From −1.5 the residual falls from 3.9 to 3 at the maximum of F, at −1, and must then rise to 7
    # at its minimum before it can fall to 0 at 2.279.
    start = torch.full((1,), -1.5, dtype=torch.float64)
    solution = root(cubic, start, solver=Homotopy(), batch_dims=1, trace=True)
    assert solution.value.item() == pytest.approx(2.2790187861665936, abs=1e-9)
    assert solution.trace is not None
    highest = np.nanmax(solution.trace)
    # Points of the path, at most one step beside the minimum.
    assert 6.0 < highest < 7.0 * (1 + 1e-3)


def test_freudenstein_and_roth_is_solved_from_its_start() -> None:
    problem = problems.get("freudenstein-roth")
    solution = root(problem.residual, problem.start(), solver=Homotopy())
    torch.testing.assert_close(
        solution.value, torch.tensor([5.0, 4.0], dtype=torch.float64), rtol=1e-7, atol=0
    )


@every_kind
def test_an_equation_that_newton_overshoots_is_followed_to_its_root(kind: Kind) -> None:
    start = torch.tensor([20.0, -3.0, 500.0], dtype=torch.float64)
    solution = root(torch.atan, start, solver=Homotopy(kind=kind), batch_dims=1)
    # rtol 1e-10 of at most π/2, slope one.
    assert (solution.value.abs() <= 2e-10).all()


def test_a_path_that_only_touches_zero_is_ended_at_a_singular_solution() -> None:
    problem = problems.get("powell-singular")
    stopping = Stopping(rtol=0.0, atol=1e-10)
    solution = root(problem.residual, problem.start(), solver=Homotopy(), stopping=stopping)
    assert solution.converged
    assert problem.residual(solution.value).abs().max() <= 2e-10


def test_a_path_that_turns_back_at_zero_is_ended_there() -> None:
    # z² = μ z₀² is a fold at μ = 0. Steps pass over it at larger μ; beyond, the path leads to infinity.
    start = torch.ones(1, dtype=torch.float64)
    for first_step in (0.1, 0.5):
        solver = Homotopy(first_step=first_step)
        solution = root(torch.square, start, solver=solver, batch_dims=1, on_failure="accept")
        assert solution.converged.all()
        # rtol 1e-10 of a residual that is the square of the error.
        assert solution.value.abs().item() <= 1e-5


def test_no_step_turns_by_more_than_45_degrees(monkeypatch: pytest.MonkeyPatch) -> None:
    cosines = []
    advance = homotopy._Walk._advance

    def watched(walk: Any, accepted: Tensor, w: Tensor, move: Tensor) -> None:
        if accepted.item() and walk._set_out.item():
            before = walk._direction
            cosines.append((torch.sum(move * before) / move.norm() / before.norm()).item())
        advance(walk, accepted, w, move)

    monkeypatch.setattr(homotopy._Walk, "_advance", watched)
    start = torch.full((1,), -1.5, dtype=torch.float64)
    for first_step in (0.1, 0.3, 1.0):
        assert root(cubic, start, solver=Homotopy(first_step=first_step), batch_dims=1).converged
    # Without the limit the steps at the folds of the cubic turn by up to 63°.
    assert len(cosines) > 20
    assert min(cosines) >= 0.7


def test_systems_without_a_solution_say_so_and_the_others_finish() -> None:
    shift = torch.tensor([-4.0, 4.0, -9.0], dtype=torch.float64)
    start = torch.full_like(shift, 1.0)

    def F(z: Tensor) -> Tensor:
        return z**2 + shift[: z.shape[0]]

    solution = root(F, start, solver=Homotopy(), batch_dims=1, on_failure="accept")
    assert solution.converged.tolist() == [True, False, True]
    assert Status(int(solution.status[1])) in (Status.DIVERGED, Status.STALLED, Status.MAX_STEPS)
    torch.testing.assert_close(
        solution.value[[0, 2]], torch.tensor([2.0, 3.0]).double(), rtol=1e-9, atol=0
    )
    alone = root(F, start[:1], solver=Homotopy(), batch_dims=1)
    assert torch.equal(alone.value, solution.value[:1])
    assert torch.equal(alone.steps, solution.steps[:1])


@pytest.mark.parametrize("dropping", [False, True])
def test_dropping_finished_systems_changes_no_answer(dropping: bool) -> None:
    far = torch.tensor([1.1, 20.0, 1.2, 1.3], dtype=torch.float64)
    near = torch.tensor([1.0, 0.5, 1.0, 1.0], dtype=torch.float64)
    solution = root(
        lambda z, a: torch.atan(z - a), far, near, solver=Homotopy(), batch_dims=1,
        batched_args=(True,) if dropping else None,
    )  # fmt: skip
    torch.testing.assert_close(solution.value, near, rtol=0, atol=1e-9)
    # What needs more steps has taken more.
    assert int(solution.steps[1]) >= int(solution.steps[0])


def test_a_krylov_corrector_follows_a_path_of_many_unknowns() -> None:
    n = 300
    target = torch.linspace(-1, 1, n, dtype=torch.float64)
    solution = root(
        lambda z: torch.atan(3 * (z - target)) - 0.1 * torch.atan(z.roll(1) - target.roll(1)),
        torch.full((n,), 4.0).double(),
        solver=Homotopy(corrector=NewtonKrylov(globalisation=None)),
    )  # fmt: skip
    torch.testing.assert_close(solution.value, target, rtol=0, atol=1e-7)


def test_a_fixed_point_and_its_derivative() -> None:
    x = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    z = fixed_point(
        lambda z, x: torch.cos(2 * z) + x,
        torch.zeros(2).double(),
        x,
        solver=Homotopy(),
        batch_dims=1,
    ).value
    (gradient,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(gradient, 1 / (1 + 2 * torch.sin(2 * z.detach())))


def test_limits_and_the_callback_end_it() -> None:
    start = torch.full((1,), -1.5, dtype=torch.float64)
    limited = root(
        cubic, start, solver=Homotopy(), batch_dims=1, on_failure="accept",
        stopping=Stopping(max_evaluations=20),
    )  # fmt: skip
    assert limited.status.item() == Status.MAX_STEPS
    # One point of the path may be under way.
    assert limited.evaluations <= 20 + 2
    stopped = root(
        cubic, start, solver=Homotopy(), batch_dims=1, on_failure="accept",
        callback=lambda step, norms: step >= 3,
    )  # fmt: skip
    assert (stopped.status.item(), stopped.steps.item()) == (Status.MAX_STEPS, 3)


def test_options_are_checked() -> None:
    with pytest.raises(TypeError, match=r"corrector must be a solver such as Newton\(\), got 3"):
        Homotopy(corrector=3)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="kind must be one of 'newton', 'fixed_point', got 'linear'"
    ):
        Homotopy(kind="linear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"first_step must be in \(0, 1\], got 2"):
        Homotopy(first_step=2)
