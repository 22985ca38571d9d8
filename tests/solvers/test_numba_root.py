"""Newton in compiled code against SciPy, closed forms, and the same iterations in NumPy.

`NumbaRoot` only takes equations that are compiled, so it is not among the solvers that share the
properties of `references.py`; those that concern it are here.
"""

from __future__ import annotations

import threading
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
    Exact,
    NumbaEquation,
    NumbaRoot,
    SolveError,
    Status,
    Stopping,
    Unrolled,
    fixed_point,
    root,
)
from implicitly.solvers.interface.compiled_systems import in_blocks
from torch import Tensor

EPS = float(np.finfo(np.float64).eps)
TIGHT = Stopping(rtol=0.0, atol=1e-12)


def solved(equation: Any, z0: Tensor, p: Tensor, **options: Any) -> Any:
    options = {"solver": NumbaRoot(), "stopping": TIGHT, "batch_dims": 1, **options}
    return root(equation, z0, p, **options)


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


@pytest.mark.parametrize("n", [1, 2])
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


@numba.njit
def menu(z: Any, p: Any, out: Any) -> None:
    """What can go wrong, and what a solver should master, chosen by the first parameter."""
    x, y = z[0], z[1]
    out[0], out[1] = x - p[1], y - 2 * x
    if p[0] == 1:
        raise ValueError
    if p[0] == 2:
        out[0] = np.nan
    if p[0] == 3:  # No root.
        out[0] = x * x + 1
    if p[0] == 4:  # Does not depend on z.
        out[0], out[1] = 1.0, 2.0
    if p[0] == 5:  # Singular at the start, where x = 0.
        out[0], out[1] = x * x + y - 1, x * y
    if p[0] == 6:  # Full Newton steps diverge.
        out[0], out[1] = np.arctan(x), y - x
    if p[0] == 7:  # Raises only where a full step leads.
        if x < 0:
            raise ValueError
        out[0] = np.sqrt(x) - 0.1
    if p[0] == 8:
        out[0] = x * x
    if p[0] == 9:
        out[1] = y * y - 4


MENU = NumbaEquation(menu, n=2)


@numba.njit
def scalar_menu(z: Any, p: Any, out: Any) -> None:
    x = z[0]
    out[0] = x - p[1]
    if p[0] == 1:
        raise ValueError
    if p[0] == 2:
        out[0] = np.nan
    if p[0] == 3:
        out[0] = x * x + 1
    if p[0] == 4:
        out[0] = 1.0
    if p[0] == 6:
        out[0] = np.arctan(x)
    if p[0] == 7:
        if x < 0:
            raise ValueError
        out[0] = np.sqrt(x) - 0.1
    if p[0] == 9:  # In units of z and of F.
        u = x / p[2]
        out[0] = p[3] * (u + u * u * u - p[1])


SCALAR_MENU = NumbaEquation(scalar_menu, n=1)


def ordered(kinds: list[int], starts: list[float], n: int) -> tuple[Tensor, Tensor]:
    z0 = torch.tensor(starts, dtype=torch.float64).unsqueeze(1).repeat(1, n)
    return z0, torch.tensor([[kind, 3.0] for kind in kinds], dtype=torch.float64)


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


@pytest.mark.parametrize("form", ["root", "fixed_point"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("equation", "n"), [(SCALAR_MENU, 1), (MENU, 2)])
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


# --- What it refuses -----------------------------------------------------------------------------


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


# --- Threads -------------------------------------------------------------------------------------


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
    found: list[Tensor] = []
    users = [
        threading.Thread(target=lambda: found.append(solved(KEPLER, z0, p).value)) for _ in range(4)
    ]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert all(torch.equal(value, expected) for value in found)
    assert len(found) == 4
