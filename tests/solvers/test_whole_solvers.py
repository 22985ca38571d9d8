"""Solvers that run whole: what they return is judged by the driver, not by themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from implicitly import Exact, Status, Stopping, Unrolled, fixed_point, root
from implicitly.solvers import FixedPointIteration, Goal, Problem, RunOutcome, WholeSolver, solve
from torch import Tensor


@dataclass(frozen=True)
class Claims(WholeSolver):
    """Returns `value` and says that every system ended with `status`."""

    value: Callable[[Tensor], Tensor]
    status: Status = Status.CONVERGED

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        batch = z.shape[0]
        return RunOutcome(
            self.value(z), np.full(batch, int(self.status), dtype=np.int8), np.full(batch, 7)
        )


def start(*entries: float) -> Tensor:
    return torch.tensor(entries, dtype=torch.float64).unsqueeze(1)


def test_a_claim_of_success_counts_only_where_the_residual_confirms_it() -> None:
    solver = Claims(lambda z: start(2.0, 1.9, 2.0))
    result = solve(Problem(lambda z: z * z - 4, "root"), solver, start(1.0, 1.0, 3.0))
    assert result.status.tolist() == [Status.CONVERGED, Status.STALLED, Status.CONVERGED]
    assert result.steps.tolist() == [7, 7, 7]
    # The residual is that of the value: |1.9² − 4|.
    assert result.residual_norm[1] == pytest.approx(0.39)


@pytest.mark.parametrize("status", [Status.MAX_STEPS, Status.LINEAR_SOLVE_FAILED])
def test_a_claim_of_failure_is_overruled_by_a_residual_that_is_small(status: Status) -> None:
    solver = Claims(lambda z: start(2.0, 1.9), status)
    result = solve(Problem(lambda z: z * z - 4, "root"), solver, start(1.0, 1.0))
    assert result.status.tolist() == [Status.CONVERGED, status]


@pytest.mark.parametrize("end", [50.0, np.nan])
def test_the_start_comes_back_where_the_end_is_worse(end: float) -> None:
    solver = Claims(lambda z: start(end, 2.0))
    result = solve(Problem(lambda z: z * z - 4, "root"), solver, start(1.0, 1.0))
    assert result.z.tolist() == [[1.0], [2.0]]
    assert result.residual_norm[0] == 3.0
    assert result.status[0] == (Status.STALLED if np.isfinite(end) else Status.NON_FINITE)


def test_what_is_solved_at_the_start_takes_no_step() -> None:
    goal_is_met = Stopping(rtol=0.0, atol=1e-8)
    solver = Claims(lambda z: start(9.0, 2.0))
    result = solve(Problem(lambda z: z * z - 4, "root"), solver, start(2.0, 1.0), goal_is_met)
    assert result.status.tolist() == [Status.CONVERGED, Status.CONVERGED]
    assert result.z.tolist() == [[2.0], [2.0]]
    assert result.steps.tolist() == [0, 7]


def test_a_reference_takes_the_place_of_the_first_residual() -> None:
    # |z² − 4| = 0.41 at 2.1 meets 1e-2 of a first residual of 50, not of its own.
    problem = Problem(lambda z: z * z - 4, "root")
    near, stopping = start(2.1), Stopping(rtol=1e-2, max_steps=0)
    alone = solve(problem, FixedPointIteration(), near, stopping)
    continued = solve(
        problem, FixedPointIteration(), near, stopping, reference=torch.tensor([50.0])
    )
    assert (alone.status[0], continued.status[0]) == (Status.MAX_STEPS, Status.CONVERGED)


def test_gradients_pass_and_unrolling_explains_why_it_cannot() -> None:
    a = torch.tensor([4.0, 9.0], dtype=torch.float64, requires_grad=True)
    solver = Claims(lambda z: start(2.0, 3.0))
    z = root(lambda z, a: z * z - a, torch.ones(2).double(), a, solver=solver, batch_dims=1).value
    (gradient,) = torch.autograd.grad(z.sum(), a)
    # d√a/da = 1 / (2√a).
    assert torch.allclose(gradient, 0.5 / a.detach().sqrt(), rtol=1e-12)
    with pytest.raises(TypeError, match=r"Claims runs whole.*other than Unrolled"):
        root(
            lambda z, a: z * z - a, torch.ones(2).double(), a, solver=solver, batch_dims=1,
            gradient=Unrolled(),
        )  # fmt: skip


def test_it_may_solve_the_adjoint_equation() -> None:
    a = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    # u = a u + 1 at a = 1/2.
    gradient = Exact(solver=Claims(lambda z: start(2.0)))
    z = fixed_point(
        lambda z, a: a * z + 1, torch.zeros(1).double(), a, gradient=gradient, batch_dims=1
    )
    (derivative,) = torch.autograd.grad(z.value.sum(), a)
    # d/da 1/(1 − a) = 1/(1 − a)².
    assert derivative.item() == pytest.approx(4.0, rel=1e-9)
