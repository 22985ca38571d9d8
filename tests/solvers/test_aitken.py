"""Aitken's and Steffensen's extrapolations against their scalar formulas, and their orders."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from implicitly import Aitken, Solver, Steffensen, Stopping, fixed_point, root
from oracle import Array
from torch import Tensor


def norms_of(solver: Solver, start: Tensor, steps: int) -> Array:
    """Residual norms of `cos(z) = z`, at every step."""
    trace = fixed_point(
        torch.cos, start, solver=solver, trace=True, on_failure="accept", batch_dims=1,
        stopping=Stopping(rtol=0.0, atol=0.0, max_steps=steps),
    ).trace  # fmt: skip
    assert trace is not None
    return np.asarray(trace)


def test_steffensen_is_aitkens_delta_squared_of_two_plain_steps() -> None:
    start = np.array([0.2, 1.0, 2.5])
    expected = []
    z = start
    for _ in range(3):
        one = np.cos(z)
        two = np.cos(one)
        z = z - (one - z) ** 2 / (two - 2 * one + z)
        expected.append(np.abs(np.cos(z) - z))
    found = norms_of(Steffensen(), torch.from_numpy(start), 3)[1:]
    # Δ² subtracts two numbers that differ by the error of the last step, 1e-3 or more.
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-9, atol=1e-13)


def test_aitken_in_one_unknown_is_the_secant_method() -> None:
    start = np.array([0.2, 1.0, 2.5])
    before, z = start, np.cos(start)
    expected = [np.abs(np.cos(z) - z)]
    for _ in range(3):
        r_before, r = np.cos(before) - before, np.cos(z) - z
        before, z = z, z - r * (z - before) / (r - r_before)
        expected.append(np.abs(np.cos(z) - z))
    found = norms_of(Aitken(), torch.from_numpy(start), 4)[1:]
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("solver", "least"), [(Steffensen(), 1.9), (Aitken(), 1.5)], ids=str)
def test_the_observed_order_is_two_and_that_of_the_secant_method(
    solver: Solver, least: float
) -> None:
    norms = norms_of(solver, torch.tensor([0.1], dtype=torch.float64), 12)[:, 0]
    # Above the rounding of cos(z) − z, and where the square of the error has not yet met it.
    logs = np.log(norms[norms > 1e-14])
    orders = (logs[2:] - logs[1:-1]) / (logs[1:-1] - logs[:-2])
    assert orders.max() >= least
    # e₊ ≤ C e²: the last constant is |f''| / 2|1 − f'|² times |f'| = 0.09 at the root, in residuals.
    if isinstance(solver, Steffensen):
        constants = norms[1:] / norms[:-1] ** 2
        slope, curvature = -math.sin(0.7390851332), -math.cos(0.7390851332)
        predicted = abs(curvature * slope / (2 * (1 - slope) ** 2))
        before_rounding = constants[(norms[1:] > 1e-13)]
        assert before_rounding[-1] == pytest.approx(predicted, rel=0.05)


def test_aitken_of_a_vector_takes_irons_and_tucks_length() -> None:
    matrix = np.array([[0.5, 0.4, 0.0], [-0.3, 0.2, 0.1], [0.0, 0.3, -0.6]])
    constant = np.array([1.0, -1.0, 0.5])
    z, omega = np.zeros(3), 1.0
    r = constant
    expected = []
    for _ in range(6):
        z = z + omega * r
        before, r = r, matrix @ z + constant - z
        omega = omega * before @ (before - r) / ((before - r) @ (before - r))
        expected.append(np.linalg.norm(r) / math.sqrt(3))
    trace = fixed_point(
        lambda z: torch.from_numpy(matrix) @ z + torch.from_numpy(constant),
        torch.zeros(3).double(), solver=Aitken(), trace=True, on_failure="accept",
        stopping=Stopping(rtol=0.0, atol=0.0, max_steps=6),
    ).trace  # fmt: skip
    assert trace is not None
    np.testing.assert_allclose(trace[1:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("solver", [Aitken(), Steffensen()], ids=str)
def test_a_map_that_expands_is_solved_where_plain_iteration_runs_away(solver: Solver) -> None:
    slopes = torch.tensor([-3.0, 1.5, 4.0], dtype=torch.float64)
    z0 = torch.zeros(3, dtype=torch.float64)
    solution = fixed_point(lambda z: slopes * z + 1, z0, solver=solver, batch_dims=1)
    torch.testing.assert_close(solution.value, 1 / (1 - slopes), rtol=1e-10, atol=0)
    # Straight lines are met exactly.
    assert int(solution.steps.max()) <= 2


def test_a_residual_that_does_not_change_is_followed_by_plain_steps() -> None:
    # Flat where |z| ≤ 2: the change of the residual says nothing there.
    def F(z: Tensor) -> Tensor:
        return torch.where(z.abs() <= 2, -1.0 + 0 * z, z - 3)

    for solver in (Aitken(), Steffensen()):
        solution = root(F, torch.zeros(1).double(), solver=solver, batch_dims=1)
        assert solution.value.item() == pytest.approx(3.0)


@pytest.mark.parametrize("solver", [Aitken(), Steffensen()], ids=str)
def test_a_root_at_zero_is_approached_until_the_numbers_end(solver: Solver) -> None:
    # The entries of a float32 residual go down to 1e-38, their squares to 1e-45.
    matrix = torch.tensor([[0.5, 0.4, 0.0], [-0.3, 0.2, 0.1], [0.0, 0.3, -0.6]])
    steps = {}
    for dtype in (torch.float32, torch.float64):
        solution = fixed_point(
            lambda z: matrix.to(z) @ z, torch.tensor([1.0, -1.0, 0.5], dtype=dtype), solver=solver,
            stopping=Stopping(rtol=0.0, atol=1e-34),
        )  # fmt: skip
        steps[dtype] = int(solution.steps)
    assert steps[torch.float32] <= 1.05 * steps[torch.float64]


def test_no_step_has_a_length_of_zero() -> None:
    # The change of the residual by the first step is at a right angle to the residual before it.
    matrix = torch.tensor([[0.0, -0.5], [0.5, -1.0]], dtype=torch.float64)
    constant = torch.tensor([1.0, 0.0], dtype=torch.float64)
    solution = fixed_point(
        lambda z: z + matrix @ z + constant, torch.zeros(2).double(), solver=Aitken(), trace=True
    )
    torch.testing.assert_close(
        solution.value, torch.linalg.solve(matrix, -constant), rtol=1e-8, atol=0
    )
    assert solution.trace is not None
    assert (np.diff(solution.trace[:, 0]) != 0).all()
