"""Newton in compiled code against SciPy, closed forms, and the same iterations in NumPy.

`NumbaRoot` only takes equations that are compiled, so it is not among the solvers that share the
properties of `references.py`; those that concern it are here.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
import scipy.optimize
import torch
from compiled_equations import (
    COUPLED,
    KEPLER,
    KEPLER_WITH_JACOBIANS,
    coupled,
    coupled_jacobians,
    coupled_systems,
    kepler_systems,
)
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    Anderson,
    NumbaEquation,
    NumbaRoot,
    Status,
    Stopping,
    fixed_point,
    root,
)

from .compiled_menu import EPS, MENU, SCALAR_MENU, ordered, solved

UNITS = [(1e6, 1.0), (1e-6, 1.0), (1.0, 1e6), (1.0, 1e-6)]


# --- Solutions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("equation", [KEPLER, KEPLER_WITH_JACOBIANS], ids=["differences", "given"])
@pytest.mark.parametrize("max_updates", [0, 10])
def test_keplers_equations_have_the_roots_that_brent_finds(
    equation: NumbaEquation, max_updates: int
) -> None:
    z0, p = kepler_systems(200, seed=0)
    solution = solved(equation, z0, p, solver=NumbaRoot(max_updates=max_updates))
    assert bool(solution.converged.all())
    for (found,), (mean, e) in zip(solution.value.tolist(), p.tolist(), strict=True):
        answer = scipy.optimize.brentq(
            lambda E, mean=mean, e=e: E - e * np.sin(E) - mean, mean - 1, mean + 1, xtol=1e-15
        )
        # The residual of either is at most 1e-12 or rounding, and the slope 1 − e cos E.
        slope = 1 - e * np.cos(answer)
        assert abs(found - answer) <= (1e-12 + 8 * EPS * abs(mean)) / slope + 4 * EPS * abs(answer)


def test_systems_of_three_unknowns_have_the_roots_that_minpack_finds() -> None:
    z0, p = coupled_systems(50, seed=0)
    solution = solved(COUPLED, z0, p)
    assert bool(solution.converged.all())
    by_z, _ = coupled_jacobians(solution.value.numpy(), p.numpy())
    for found, jacobian, row in zip(solution.value.numpy(), by_z, p.numpy(), strict=True):

        def value(z: Any, row: Any = row) -> Any:
            out = np.empty(3)
            coupled.py_func(z, row, out)
            return out

        answer = scipy.optimize.root(value, found + 1e-3, tol=1e-15).x
        smallest = np.linalg.svd(jacobian, compute_uv=False)[-1]
        # Residuals of 1e-12 and of rounding, through the inverse of the Jacobian.
        assert np.linalg.norm(found - answer) <= (np.sqrt(3) * 1e-12 + 32 * EPS) / smallest * 2


@numba.njit
def cosine(z: Any, p: Any, out: Any) -> None:
    for j in range(len(z)):
        out[j] = np.cos(p[0] * z[j])


@numba.njit
def cosine_by_z(z: Any, p: Any, out: Any) -> None:
    for j in range(len(z)):
        out[j, j] = -p[0] * np.sin(p[0] * z[j])


@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.long)])
def test_fixed_points_meet_a_tolerance_relative_to_themselves(n: int) -> None:
    p = torch.linspace(0.1, 0.9, 7, dtype=torch.float64).unsqueeze(1)
    z0 = torch.ones(7, n, dtype=torch.float64)
    equation = NumbaEquation(cosine, n=n, jacobian=cosine_by_z)
    solver = NumbaRoot(max_updates=0)
    solution = fixed_point(equation, z0, p, solver=solver, batch_dims=1)
    other = fixed_point(lambda z, p: torch.cos(p * z), z0, p, solver=Anderson(), batch_dims=1)
    assert bool(solution.converged.all())
    # Both residuals are below 1e-10 |z|, and |1 − f′| ≥ 1.
    assert torch.allclose(solution.value, other.value, rtol=2e-10, atol=0)
    # Newton from errors below 1, with |f″| / 2|1 − f′| ≤ 1/2: 2^-1, 2^-3, 2^-7, 2^-15, 2^-31, 2^-63.
    assert solution.steps.max() <= 6


@given(mean=st.floats(0, 6.28), e=st.floats(0, 0.99))
def test_an_orbit_and_its_mirror_image_are_solved_alike(mean: float, e: float) -> None:
    p = torch.tensor([[mean, e], [-mean, e]], dtype=torch.float64)
    E = solved(KEPLER, p[:, :1] + 0.85 * e * torch.sign(torch.sin(p[:, :1])), p).value
    assert E[0].item() == -E[1].item()
    assert abs(E[0].item() - mean) <= e + 1e-12
    assert abs(E[0].item() - e * np.sin(E[0].item()) - mean) <= 1e-12 + 8 * EPS * mean


# --- The iteration -------------------------------------------------------------------------------


def newton_steps(E: float, mean: float, e: float) -> int:
    for step in range(100):
        F = E - e * np.sin(E) - mean
        if abs(F) <= 1e-12:
            return step
        E -= F / (1 - e * np.cos(E))
    raise AssertionError


def secant_steps(E: float, mean: float, e: float) -> int:
    F = E - e * np.sin(E) - mean
    slope = 1 - e * np.cos(E)
    for step in range(100):
        if abs(F) <= 1e-12:
            return step
        move = -F / slope
        E, before = E + move, F
        F = E - e * np.sin(E) - mean
        slope = (F - before) / move
    raise AssertionError


@pytest.mark.parametrize(("max_updates", "steps"), [(0, newton_steps), (100, secant_steps)])
def test_steps_are_those_of_newton_and_of_the_secant_method(max_updates: int, steps: Any) -> None:
    # Small eccentricities, where every full step more than halves the residual.
    z0, p = kepler_systems(100, seed=1, largest=0.5)
    solver = NumbaRoot(max_updates=max_updates)
    solution = solved(KEPLER_WITH_JACOBIANS, z0, p, solver=solver)
    expected = [steps(E, *row) for (E,), row in zip(z0.tolist(), p.tolist(), strict=True)]
    assert solution.steps.tolist() == expected


@pytest.mark.parametrize("start", [0.5, 0.0])
@pytest.mark.parametrize(
    ("unknown", "equation"), [(1e6, 1.0), (1e-6, 1.0), (1.0, 1e6), (1.0, 1e-6)]
)
def test_units_do_not_change_the_steps(start: float, unknown: float, equation: float) -> None:
    z0, p = coupled_systems(40, seed=3)
    there, q = coupled_systems(40, seed=3, unknown=unknown, equation=equation)
    if start == 0.0:
        z0, there = 0 * z0, 0 * there
    stopping = Stopping(rtol=1e-9)
    one = solved(COUPLED, z0, p, stopping=stopping)
    other = solved(COUPLED, there, q, stopping=stopping)
    assert bool(one.converged.all())
    assert one.steps.tolist() == other.steps.tolist()


def test_a_system_is_solved_alone_as_in_company() -> None:
    z0, p = kepler_systems(300, seed=4)
    together = solved(KEPLER, z0, p)
    some = torch.arange(7, 300, 31)
    alone = solved(KEPLER, z0[some], p[some])
    assert torch.equal(together.value[some], alone.value)
    assert torch.equal(together.steps[some], alone.steps)
    z0, p = coupled_systems(50, seed=4)
    assert torch.equal(solved(COUPLED, z0, p).value[9:10], solved(COUPLED, z0[9:10], p[9:10]).value)


def broyden_steps(z: Any, value: Any, jacobian: Any) -> int | None:
    """Steps of Broyden's good method in its original form, or `None` if one does not halve `‖F‖`."""
    F, B = value(z), jacobian
    for step in range(100):
        if np.sqrt(np.mean(F**2)) <= 1e-12:
            return step
        s = np.linalg.solve(B, -F)
        z, before = z + s, F
        F = value(z)
        if np.linalg.norm(F) > 0.49 * np.linalg.norm(before):
            return None
        B = B + np.outer(F - before - B @ s, s) / (s @ s)
    raise AssertionError


def test_steps_for_several_unknowns_are_those_of_broydens_method() -> None:
    z0, p = coupled_systems(60, seed=8)
    near = solved(COUPLED, z0, p).value
    start = near + 0.05
    solution = solved(COUPLED, start, p, solver=NumbaRoot(max_updates=100))
    by_z, _ = coupled_jacobians(start.numpy(), p.numpy())
    same: list[int] = []
    for i, (z, row, jacobian, steps) in enumerate(
        zip(start.numpy(), p.numpy(), by_z, solution.steps.tolist(), strict=True)
    ):

        def value(z: Any, row: Any = row) -> Any:
            out = np.empty(3)
            coupled.py_func(z, row, out)
            return out

        expected = broyden_steps(z, value, jacobian)
        if expected is not None:
            same.append(i)
            # Differences put the first Jacobian off by 1e-8, which may show at the tolerance.
            assert abs(steps - expected) <= 1
    assert len(same) > 30
    # The first Jacobian of each, by three differences, was its only one.
    some = solved(COUPLED, start[same], p[same], solver=NumbaRoot(max_updates=100))
    assert some.counts.jvps == 3


@pytest.mark.parametrize("start", [1.0, 0.0, 1e-30])
@pytest.mark.parametrize(("unknown", "equation"), UNITS)
def test_units_do_not_change_the_steps_of_one_unknown(
    start: float, unknown: float, equation: float
) -> None:
    z0 = torch.full((5, 1), start, dtype=torch.float64)
    p = torch.tensor([[9.0, right, 1.0, 1.0] for right in (-8, -0.1, 0.1, 1, 50)]).double()
    q = p.clone()
    q[:, 2], q[:, 3] = unknown, equation
    one = solved(SCALAR_MENU, z0, p, stopping=Stopping(rtol=1e-9))
    other = solved(SCALAR_MENU, unknown * z0, q, stopping=Stopping(rtol=1e-9))
    assert one.steps.tolist() == other.steps.tolist()
    # 10 evaluations beyond the start find the width of a difference.
    assert one.counts.evaluations - int(one.steps.max()) <= 30


# Each equation is compiled once for each form, which takes most of the time.
@pytest.mark.parametrize(
    ("equation", "n", "form"),
    [
        pytest.param(SCALAR_MENU, 1, "root"),
        pytest.param(SCALAR_MENU, 1, "fixed_point", marks=pytest.mark.long),
        pytest.param(MENU, 2, "root", marks=pytest.mark.long),
        pytest.param(MENU, 2, "fixed_point"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_residual_is_that_of_exactly_the_value_that_comes_back(
    equation: NumbaEquation, n: int, dtype: torch.dtype, form: str
) -> None:
    z0, p = (tensor.to(dtype) for tensor in ordered([0, 1, 2, 3, 4], [0.7] * 5, n))
    solve = root if form == "root" else fixed_point
    for limit in (1, 2, 50):
        solution = solve(
            equation, z0, p, solver=NumbaRoot(), batch_dims=1, on_failure="accept",
            stopping=Stopping(max_steps=limit),
        )  # fmt: skip
        value = equation(solution.value, p)
        residual = value - solution.value if form == "fixed_point" else value
        norm = residual.double().square().mean(dim=1).sqrt()
        # The norms alone may be rounded otherwise.
        unit = torch.finfo(dtype).eps
        expected = norm.nan_to_num(nan=torch.inf)
        torch.testing.assert_close(solution.residual_norm.double(), expected, rtol=8 * unit, atol=0)


def test_a_function_that_complex_steps_cannot_take_may_stall() -> None:
    z0, p = ordered([0, 3, 7], [1.0] * 3, 1)  # A line, x² + 1, √x with a comparison.
    solution = root(SCALAR_MENU, z0, p, solver=NumbaRoot(), batch_dims=1, on_failure="accept")
    assert solution.status.tolist() == [Status.CONVERGED, Status.STALLED, Status.CONVERGED]


@pytest.mark.parametrize(("equation", "n"), [(SCALAR_MENU, 1), (MENU, 2)])
def test_evaluations_are_counted_per_system(equation: NumbaEquation, n: int) -> None:
    z0, p = ordered([0] * 5, [1.0] * 5, n)
    p[:, 1] = torch.linspace(-2, 7, 5, dtype=torch.float64)
    solution = solved(equation, z0, p, stopping=Stopping(rtol=1e-5))
    # The start, n differences, and one step of a linear equation: its value is what comes back. Of residuals
    # that are exactly zero the Jacobian tells whether it is by underflow: one evaluation and n products.
    assert (solution.counts.evaluations, solution.counts.jvps) == (n + 3, 2 * n)
    assert solution.steps.tolist() == [1] * 5
    # A difference is good to half the digits.
    assert torch.allclose(solution.value[:, 0], p[:, 1], rtol=0, atol=1e-6)
