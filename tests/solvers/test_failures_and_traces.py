"""What a solve tells its caller: errors, warnings, the trace, the callback."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from implicitly import (
    DenseLU,
    FixedPointIteration,
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
)
from torch import Tensor

from .driven import (
    ZERO,
    every_form,
    every_solver,
    status_of,
    steps_towards_tolerance,
)
from .references import (
    Form,
)


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
