"""Where `NumbaRoot` ends without a root, what it refuses, and its threads."""

from __future__ import annotations

import threading
from typing import Any

import numba
import numpy as np
import pytest
import torch
from at_once import in_threads
from compiled_equations import (
    COUPLED,
    KEPLER,
    coupled_systems,
    kepler_systems,
)
from implicitly import (
    Exact,
    NumbaEquation,
    NumbaRoot,
    SolveError,
    Status,
    Stopping,
    Unrolled,
    root,
)
from implicitly.solvers.interface.compiled_systems import in_blocks

from .compiled_menu import EPS, MENU, SCALAR_MENU, menu, ordered, solved


@pytest.mark.parametrize(("equation", "n"), [(SCALAR_MENU, 1), (MENU, 2)])
def test_systems_that_fail_have_a_status_and_the_others_finish(
    equation: NumbaEquation, n: int
) -> None:
    z0, p = ordered([0, 1, 2, 3, 4, 0], [1.0] * 6, n)
    solution = solved(equation, z0, p, on_failure="accept")
    assert [Status(code).name for code in solution.status.tolist()] == [
        "CONVERGED", "NON_FINITE", "NON_FINITE", "STALLED", "LINEAR_SOLVE_FAILED", "CONVERGED",
    ]  # fmt: skip
    assert solution.value[0].tolist() == [3.0, 6.0][:n]
    with pytest.raises(SolveError, match=r"NumbaRoot did not solve .*menu: 4 of 6 systems"):
        solved(equation, z0, p)


@pytest.mark.parametrize(("equation", "n"), [(SCALAR_MENU, 1), (MENU, 2)])
@pytest.mark.parametrize("max_updates", [0, 10])
def test_steps_are_shortened_where_full_ones_go_astray(
    equation: NumbaEquation, n: int, max_updates: int
) -> None:
    # Newton for arctan diverges from |x| > 1.4; from x = 1 a full step for √x − 0.1 ends below zero.
    z0, p = ordered([6, 6, 7], [3.0, -20.0, 1.0], n)
    solution = solved(equation, z0, p, solver=NumbaRoot(max_updates=max_updates))
    assert torch.allclose(solution.value[:2, 0], torch.zeros(2).double(), atol=1e-11)
    # |√x − 0.1| ≤ 1e-12 √n moves x by 2√x times as much.
    assert solution.value[2, 0].item() == pytest.approx(0.01, abs=1e-12)


def test_a_singular_jacobian_gives_a_regularised_step() -> None:
    z0, p = ordered([5, 8], [0.0, 1.0], 2)
    solution = solved(MENU, z0, p, stopping=Stopping(rtol=1e-10))
    x, y = solution.value[0].tolist()
    assert x * x + y == pytest.approx(1, abs=1e-9)
    assert x * y == pytest.approx(0, abs=1e-9)
    # x² = 0 is singular at its root: the residual, not the root, is what the tolerance bounds.
    assert abs(solution.value[1, 0].item()) < 1e-4


@numba.njit
def squares_by_z(z: Any, p: Any, out: Any) -> None:
    out[0, 0], out[1, 0], out[1, 1] = 1.0, 0.0, 2 * z[1]


def test_a_step_that_no_length_mends_is_regularised() -> None:
    # Newton's step for y² − 4 at 1e-8 is 2e8 long, and three trials do not shorten it to ten.
    z0, p = ordered([9], [1e-8], 2)
    equation = NumbaEquation(menu, n=2, jacobian=squares_by_z)
    solver = NumbaRoot(max_trials=3)
    solution = solved(equation, z0, p, solver=solver, stopping=Stopping(rtol=1e-12))
    assert solution.value[0].tolist() == pytest.approx([3.0, 2.0])


def test_limits_end_a_solve_with_that_status() -> None:
    z0, p = kepler_systems(20, seed=5)
    few = solved(
        KEPLER, z0, p, stopping=Stopping(rtol=0.0, atol=1e-12, max_steps=1), on_failure="accept"
    )
    assert set(few.status.tolist()) == {Status.MAX_STEPS}
    assert few.steps.tolist() == [1] * 20
    for equation, systems in ((KEPLER, kepler_systems), (COUPLED, coupled_systems)):
        z0, p = systems(20, seed=5)
        stopping = Stopping(rtol=0.0, atol=1e-13, max_evaluations=6)
        short = solved(equation, z0, p, stopping=stopping, on_failure="accept")
        # One more looks at the value that comes back; a Jacobian once begun is finished.
        assert short.counts.evaluations <= 6 + 3
        assert set(short.status.tolist()) <= {Status.MAX_STEPS, Status.CONVERGED}
        assert Status.MAX_STEPS in short.status.tolist()
        assert bool((short.residual_norm <= (equation(z0, p).square().mean(1)).sqrt()).all())


def test_a_tolerance_below_rounding_ends_as_stalled_at_the_rounding_level() -> None:
    for equation, systems in ((KEPLER, kepler_systems), (COUPLED, coupled_systems)):
        z0, p = systems(20, seed=6)
        solution = solved(
            equation, z0, p, stopping=Stopping(rtol=0.0, atol=0.0), on_failure="accept"
        )
        assert bool((solution.residual_norm <= 32 * EPS).all())
        assert set(solution.status.tolist()) <= {Status.STALLED, Status.CONVERGED}
        assert solution.steps.max() < 30


def test_a_true_callback_ends_the_solve_where_it_began() -> None:
    z0, p = kepler_systems(3, seed=7)
    seen: list[Any] = []

    def callback(step: int, norms: Any) -> bool:
        seen.append((step, norms))
        return True

    solution = solved(KEPLER, z0, p, callback=callback, on_failure="accept")
    assert torch.equal(solution.value, z0)
    assert set(solution.status.tolist()) == {Status.MAX_STEPS}
    np.testing.assert_allclose(seen[0][1], KEPLER(z0, p).abs().flatten().numpy())


def test_an_equation_that_is_not_compiled_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"systems of a NumbaEquation.*batch_dims.*use Newton\(\)"):
        root(lambda z: z * z - 2, torch.ones(1).double(), solver=NumbaRoot())


def test_coupled_systems_are_refused_with_the_remedy() -> None:
    z0, p = kepler_systems(3, seed=0)
    with pytest.raises(TypeError, match=r"z0 of shape \(\*batch, n\) and batch_dims=len\(batch\)"):
        root(KEPLER, z0, p, solver=NumbaRoot())


def test_an_adjoint_is_refused_with_the_remedy() -> None:
    z0, p = kepler_systems(3, seed=0)
    z = solved(KEPLER, z0, p.requires_grad_(), gradient=Exact(solver=NumbaRoot())).value
    with pytest.raises(TypeError, match=r"for an adjoint DenseLU\(\)"):
        z.sum().backward()


def test_it_cannot_be_unrolled() -> None:
    z0, p = kepler_systems(3, seed=0)
    with pytest.raises(TypeError, match="NumbaRoot runs whole"):
        solved(KEPLER, z0, p.requires_grad_(), gradient=Unrolled())


@pytest.mark.parametrize("options", [{"max_updates": -1}, {"max_trials": 0}, {"max_trials": 1.5}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        NumbaRoot(**options)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("systems", [0, 1, 31, 1000, 1001])
def test_each_system_is_worked_on_once(threads: int, systems: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("implicitly.solvers.interface.compiled_systems._WORTH_A_THREAD", 0.0)
    done = np.zeros(systems, dtype=int)

    def work(start: int, stop: int) -> None:
        done[start:stop] += 1

    in_blocks(work, systems)
    assert done.tolist() == [1] * systems


def test_an_error_in_a_thread_is_an_error_of_the_call(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr("implicitly.solvers.interface.compiled_systems._WORTH_A_THREAD", 0.0)
    main = threading.current_thread()
    called = threading.Event()

    def work(start: int, stop: int) -> None:
        if threading.current_thread() is not main:
            called.set()
            raise ArithmeticError
        if start:
            called.wait(10)

    with pytest.raises(ArithmeticError):
        in_blocks(work, 1000)


def test_threads_of_the_user_may_solve_at_the_same_time(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr("implicitly.solvers.interface.compiled_systems._WORTH_A_THREAD", 0.0)
    z0, p = kepler_systems(2000, seed=8)
    expected = solved(KEPLER, z0, p).value
    found = in_threads(lambda: solved(KEPLER, z0, p).value, 4)
    assert all(torch.equal(value, expected) for value in found)
    assert len(found) == 4
