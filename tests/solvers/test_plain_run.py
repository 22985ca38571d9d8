"""Plain steps that the driver takes by itself, beside the same steps with a full look at each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from implicitly import Anderson, FixedPointIteration, NeumannSeries, Status, Stopping
from implicitly.solvers import FlatSolution, Problem, Solver, solve
from implicitly.solvers.composed.members import default_members
from implicitly.solvers.driving.monitor import Monitor
from torch import Tensor

F64 = torch.float64


def contractions(rates: list[float], n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Matrices with these norms, and right-hand sides."""
    generator = torch.Generator().manual_seed(n)
    A = torch.randn(len(rates), n, n, generator=generator, dtype=F64)
    A = (
        A
        / torch.linalg.matrix_norm(A, 2, keepdim=True)
        * torch.tensor(rates, dtype=F64)[:, None, None]
    )
    return A.to(dtype), torch.randn(len(rates), n, generator=generator, dtype=F64).to(dtype)


def product(A: Tensor, z: Tensor) -> Tensor:
    return torch.einsum("bij,bj->bi", A, z)


def affine(A: Tensor, b: Tensor) -> Problem:
    return Problem(lambda z: product(A, z) + b, operator=lambda v: product(A, v))


def curved(A: Tensor, b: Tensor) -> Problem:
    return Problem(lambda z: torch.tanh(product(A, z)) + b)


def with_full_looks(problem: Problem, solver: Solver, z: Tensor, rule: Stopping) -> FlatSolution:
    return solve(problem, solver, z, rule, callback=lambda step, norms: False)


def check_same(one: FlatSolution, other: FlatSolution) -> None:
    """Bitwise, in everything that a result holds."""
    assert torch.equal(one.z, other.z)
    for name in ("status", "steps", "best_step"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for name in ("residual_norm", "threshold", "error"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True), name
    assert one.counts == other.counts


RULES = [
    Stopping(),
    Stopping(max_steps=7),
    Stopping(rtol_residual=1e-3),
    Stopping(max_evaluations=9),
]


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("rule", RULES, ids=["default", "steps", "residual", "evaluations"])
@pytest.mark.parametrize("rates", [[0.3], [0.1, 0.6, 0.4], [0.2, 0.95, 0.5], [0.3, 1.5]], ids=str)
@pytest.mark.parametrize(
    ("solver", "make"),
    [
        (FixedPointIteration(), curved),
        (FixedPointIteration(damping=0.7), curved),
        (Anderson(plain_below=0.7), curved),
        (NeumannSeries(), affine),
        (NeumannSeries(below=0.5), affine),
    ],
    ids=["plain", "damped", "Anderson", "Neumann", "Neumann below"],
)
def test_results_are_those_of_full_looks_to_the_last_bit(
    solver: Solver, make: Any, rates: list[float], rule: Stopping, dtype: torch.dtype
) -> None:
    A, b = contractions(rates, 6, dtype)
    z = torch.zeros_like(b)
    with np.errstate(all="ignore"):  # Rates above one leave the range of numbers.
        found = solve(make(A, b), solver, z, rule)
        expected = with_full_looks(make(A, b), solver, z, rule)
    check_same(found, expected)


def test_full_looks_are_those_at_which_systems_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # In float32 the last steps are at the rounding level and above the tolerance.
    looks: list[int] = []
    of_monitor = Monitor.look

    def counting(self: Monitor, state: Any, step: int, **options: Any) -> bool:
        looks.append(step)
        return of_monitor(self, state, step, **options)

    monkeypatch.setattr(Monitor, "look", counting)
    A, b = contractions([0.3, 0.3], 6, torch.float32)
    found = solve(curved(A, b), Anderson(plain_below=0.7), torch.zeros_like(b))
    assert found.status.tolist() == [Status.CONVERGED] * 2
    ends = sorted(set(found.steps.tolist()))
    assert looks == [0, *range(ends[0], ends[-1] + 1)]


def test_fast_systems_go_on_plainly_when_others_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    A, b = contractions([0.05, 0.3, 0.4], 6, F64)
    expected = [
        solve(curved(A[i : i + 1], b[i : i + 1]), Anderson(plain_below=0.7), torch.zeros(1, 6, dtype=F64))
        for i in range(3)
    ]  # fmt: skip

    def extrapolating(self: Anderson, state: Any) -> Tensor:
        raise AssertionError("an extrapolation, although every system that runs contracts fast")

    monkeypatch.setattr(Anderson, "combination", extrapolating)
    found = solve(curved(A, b), Anderson(plain_below=0.7), torch.zeros_like(b))
    assert len(set(found.steps.tolist())) > 1
    for i, alone in enumerate(expected):
        assert torch.equal(found.z[i : i + 1], alone.z)
        assert found.steps[i] == alone.steps[0]


def test_systems_that_are_no_numbers_or_solved_at_once_end_a_run() -> None:
    A, b = contractions([0.3, 0.4, 0.2], 4, F64)
    b[1], b[2] = torch.nan, 0.0
    z = torch.zeros_like(b)
    z[0] = 1.0
    problem = curved(A, b)
    found = solve(problem, FixedPointIteration(), z)
    assert found.status.tolist() == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    check_same(found, with_full_looks(replace(problem, counts=type(problem.counts)()),
                                      FixedPointIteration(), z, Stopping()))  # fmt: skip


def test_a_series_ends_where_its_terms_shrink_slowly_and_others_go_on() -> None:
    A, b = contractions([0.3, 0.9], 5, F64)
    # The slow system has the norm of its matrix as the factor of each term.
    A[1] = 0.9 * torch.eye(5, dtype=F64)
    solution = solve(affine(A, b), NeumannSeries(below=0.5), torch.zeros_like(b))
    assert solution.status.tolist() == [Status.CONVERGED, Status.STALLED]
    assert solution.steps[1] == 1
    alone = solve(affine(A[:1], b[:1]), NeumannSeries(), torch.zeros(1, 5, dtype=F64))
    assert torch.equal(solution.z[:1], alone.z)
    exact = torch.linalg.solve(torch.eye(5, dtype=F64) - A[0], b[0])
    torch.testing.assert_close(solution.z[0], exact, rtol=1e-8, atol=1e-8)


def test_linear_fixed_points_begin_with_a_series_and_roots_do_not() -> None:
    first = default_members(1, 33, linear=True, fixed_point=True)[0]
    assert first == NeumannSeries(below=0.5)
    assert not isinstance(default_members(1, 33, linear=True)[0], NeumannSeries)
    # A Krylov space of so few unknowns is exhausted before.
    assert default_members(1, 32, True, True) == default_members(1, 32, True)
