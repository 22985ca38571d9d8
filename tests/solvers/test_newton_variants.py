"""Chord and Shamanskii steps, Levenberg–Marquardt, pseudo-transient continuation, and what each solves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    LevenbergMarquardt,
    LineSearch,
    Newton,
    NewtonKrylov,
    NonmonotoneLineSearch,
    PseudoTransient,
    Solution,
    Solver,
    Stopping,
    TrustRegion,
    fixed_point,
    problems,
    root,
)
from torch import Tensor

from .references import TanhSystems, as_float64, tanh_map

# --- Old factors ---------------------------------------------------------------------------------


def mildly_nonlinear(n: int, seed: int) -> tuple[Any, Any, Any]:
    """`A z + 0.1 sin z − b`, its Jacobian in NumPy, and a start near the root."""
    generator = np.random.default_rng(seed)
    A = np.eye(n) + 0.3 * generator.standard_normal((n, n)) / n**0.5
    b = generator.standard_normal(n)
    matrix, right = torch.from_numpy(A), torch.from_numpy(b)

    def F(z: Tensor) -> Tensor:
        return matrix @ z + 0.1 * torch.sin(z) - right

    def in_numpy(z: Any) -> Any:
        return A @ z + 0.1 * np.sin(z) - b, A + 0.1 * np.diag(np.cos(z))

    return F, in_numpy, np.linalg.solve(A, b)


@pytest.mark.parametrize("refresh", [None, 1, 2, 3])
@pytest.mark.parametrize("rule", [None, LineSearch(), TrustRegion()], ids=str)
def test_factors_serve_as_many_steps_as_they_are_asked_to(refresh: int | None, rule: Any) -> None:
    F, in_numpy, start = mildly_nonlinear(5, seed=1)
    z, factored, period = start, in_numpy(start)[1], refresh or 100
    for steps in range(1, 7):
        value, jacobian = in_numpy(z)
        if (steps - 1) % period == 0:
            factored = jacobian
        z = z - np.linalg.solve(factored, value)
        solution = root(
            F, torch.from_numpy(start), solver=Newton(globalisation=rule, refresh=refresh),
            stopping=Stopping(rtol=0.0, atol=1e-12, max_steps=steps), on_failure="accept",
        )  # fmt: skip
        # Each step contracts an error by 0.2 at least and adds rounding of the solves.
        np.testing.assert_allclose(as_float64(solution.value), z, rtol=0, atol=1e-12)
        made = int(solution.steps)
        assert solution.counts.jvps == 5 * -(-made // period)
        assert solution.evaluations == 1 + made + -(-made // period)


def test_a_chord_method_that_gets_slow_takes_a_new_jacobian() -> None:
    # With the slope at 3 the error of exp(z) − 1 falls by 1 − e⁻³ per step near the root.
    solution = root(
        lambda z: torch.exp(z) - 1, torch.tensor(3.0, dtype=torch.float64),
        solver=Newton(refresh=None),
    )  # fmt: skip
    newton = root(
        lambda z: torch.exp(z) - 1, torch.tensor(3.0, dtype=torch.float64), solver=Newton()
    )
    assert solution.value.item() == pytest.approx(0.0, abs=1e-8)
    assert 2 <= solution.counts.jvps < newton.counts.jvps
    # All but the last step of each Jacobian halve the residual, which falls by 1e-10.
    assert int(solution.steps) <= np.log2(1e10) + solution.counts.jvps


@given(batch=st.integers(2, 4), seed=st.integers(0, 200))
def test_the_age_of_the_factors_of_one_system_does_not_matter_to_another(
    batch: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    starts = 4 * torch.rand(batch, 1, generator=generator, dtype=torch.float64)
    solver = Newton(refresh=None)
    together = root(lambda z: torch.exp(z) - 1, starts, solver=solver, batch_dims=1)
    for i in range(batch):
        alone = root(lambda z: torch.exp(z) - 1, starts[i : i + 1], solver=solver, batch_dims=1)
        assert torch.equal(alone.steps[0], together.steps[i])
        assert torch.equal(alone.value[0], together.value[i])


# --- Levenberg–Marquardt --------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [1e-6, 1e-3, 10.0])
@given(n=st.integers(1, 6), singular=st.booleans(), seed=st.integers(0, 1000))
def test_a_damped_step_solves_its_least_squares_problem(
    damping: float, n: int, singular: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    J, r = generator.standard_normal((n, n)), generator.standard_normal(n)
    if singular:
        J[:, -1] = J[:, 0]
    matrix, right = torch.from_numpy(J), torch.from_numpy(r)
    solution = root(
        lambda z: matrix @ z + right, torch.zeros(n, dtype=torch.float64),
        solver=LevenbergMarquardt(first_damping=damping, balance=False), on_failure="accept",
        stopping=Stopping(rtol=0.0, atol=0.0, max_steps=1),
    )  # fmt: skip
    D = np.linalg.norm(J, axis=0)
    stacked = np.vstack([J, damping**0.5 * np.diag(D)])
    expected = np.linalg.lstsq(stacked, np.concatenate([-r, np.zeros(n)]), rcond=None)[0]
    # The condition of the scaled, stacked matrix is below n / √damping: 6e3.
    atol = 1e-9 * np.abs(expected * D).max()
    np.testing.assert_allclose(as_float64(solution.value) * D, expected * D, rtol=0, atol=atol)


# --- Pseudo-transient continuation ----------------------------------------------------------------


@pytest.mark.parametrize("first_step", [0.1, 1.0, 100.0])
def test_time_steps_follow_the_residual(first_step: float) -> None:
    systems = TanhSystems.draw(1, 5, 2.0, seed=3)
    W, x = systems.W[0], systems.x[0]
    z, delta = np.zeros(5), first_step
    r = np.tanh(W @ z + x) - z
    for steps in range(1, 6):
        slope = 1 - np.tanh(W @ z + x) ** 2
        J = slope[:, None] * W - np.eye(5)
        z = z + np.linalg.solve(np.eye(5) / delta - J, r)
        before, r = r, np.tanh(W @ z + x) - z
        delta *= np.linalg.norm(before) / np.linalg.norm(r)
        solution = fixed_point(
            tanh_map, torch.zeros(1, 5, dtype=torch.float64), *systems.tensors(torch.float64),
            solver=PseudoTransient(first_step=first_step), batch_dims=1, on_failure="accept",
            stopping=Stopping(rtol=0.0, atol=0.0, max_steps=steps), trace=True,
        )  # fmt: skip
        assert solution.trace is not None
        norm = np.linalg.norm(r) / 5**0.5
        np.testing.assert_allclose(solution.trace[-1, 0], norm, rtol=1e-8, atol=1e-15)


def test_a_steady_state_is_the_one_that_the_flow_reaches() -> None:
    # Newton's first step from 0.7 leads beyond 1, and from 0.58 far beyond; the flow does neither.
    start = torch.tensor([0.6, 0.7, 0.9, 1.8], dtype=torch.float64)
    solution = root(lambda z: z**3 - z, start, solver=PseudoTransient(first_step=0.1), batch_dims=1)
    np.testing.assert_allclose(as_float64(solution.value), 1.0, rtol=0, atol=1e-8)


# --- What each solves from the standard start ----------------------------------------------------

FAILS: dict[str, tuple[Solver, set[str]]] = {
    "full steps": (Newton(globalisation=None), set()),
    "line search": (Newton(globalisation=LineSearch()), {"freudenstein-roth"}),
    "nonmonotone": (Newton(globalisation=NonmonotoneLineSearch()), {"freudenstein-roth"}),
    "trust region": (Newton(), {"freudenstein-roth"}),
    "chord": (Newton(refresh=None), {"freudenstein-roth"}),
    "Shamanskii": (Newton(refresh=3), {"freudenstein-roth"}),
    "Levenberg–Marquardt": (LevenbergMarquardt(), {"freudenstein-roth"}),
    "Krylov, trust region": (NewtonKrylov(globalisation=TrustRegion()), {"freudenstein-roth"}),
    "Krylov, nonmonotone": (NewtonKrylov(), {"freudenstein-roth", "generalised-rosenbrock"}),
    "pseudo-transient": (
        PseudoTransient(),
        {"generalised-rosenbrock", "powell-badly-scaled", "trigonometric"},
    ),
}


def solve_classical(name: str, solver: Solver) -> Solution:
    problem = problems.get(name)
    n = len(problem.start())
    return root(
        problem.residual, problem.start(), solver=solver, on_failure="accept",
        stopping=Stopping(
            rtol=0.0, atol=1e-8 / n**0.5, max_steps=300, max_evaluations=10_000, divergence=1e300,
            patience=300,
        ),
    )  # fmt: skip


# What the nonmonotone Krylov variant solves, tests/problems/test_expected.py tells by default too.
# By default tests/problems/test_expected.py solves them, with the limits of its own.
@pytest.mark.long
@pytest.mark.parametrize("kind", FAILS)
def test_the_classical_problems_that_a_variant_solves(kind: str) -> None:
    solver, expected = FAILS[kind]
    failed = set()
    for problem in problems.all(tag="classical"):
        solution = solve_classical(problem.name, solver)
        solved = problem.residual(solution.value).abs().max().item() <= 1e-8
        # No success without a root.
        assert solved or not bool(solution.converged)
        if not solved:
            failed.add(problem.name)
    assert failed == expected


@pytest.mark.parametrize(
    "solver",
    [Newton(), Newton(globalisation=LineSearch(balance=True)), Newton(refresh=None),
     LevenbergMarquardt()],
    ids=["trust region", "balanced line search", "chord", "Levenberg–Marquardt"],
)  # fmt: skip
def test_the_battery_is_solved_where_equations_count_in_their_own_units(solver: Solver) -> None:
    problem = problems.get("battery")
    solution = root(
        problem.residual, problem.start(), solver=solver, stopping=Stopping(rtol=0.0, atol=1e-6)
    )
    np.testing.assert_allclose(
        as_float64(solution.value), as_float64(problem.roots()[0].value), rtol=1e-6, atol=1e-9
    )


def test_the_battery_stalls_a_line_search_on_the_plain_norm() -> None:
    problem = problems.get("battery")
    solution = root(
        problem.residual, problem.start(), solver=Newton(globalisation=LineSearch()),
        on_failure="accept",
    )  # fmt: skip
    assert problem.residual(solution.value).norm().item() > 270
