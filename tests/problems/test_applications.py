"""The problems from applications against closed forms, the literature and dense matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from implicitly import GMRES, NewtonKrylov, Stopping, problems, root
from implicitly.problems import TestProblem
from implicitly.problems.grid import FastPoisson, five_point, sine_transform
from oracle import newton_step
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SCALABLE = problems.names(tag="scalable")
GRIDS = {"bratu": 1, "convection-diffusion": 1, "driven-cavity": 2, "brusselator": 2}
QUADRATIC_MEMORY = {"chandrasekhar-h"}


def newton(problem: TestProblem, n: int | None = None, tolerance: float = 1e-9) -> Tensor | None:
    """The root that undamped dense Newton finds from the start, or `None` after 30 steps."""
    z = problem.start(n)
    for _ in range(30):
        value = problem.residual(z)
        if not bool(value.isfinite().all()):
            return None
        if value.abs().max() <= tolerance:
            return z
        z = newton_step(problem.residual, z)
    return None


# --- Cost ---------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """Counts operations, and keeps the size of the largest tensor that one makes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.count += 1
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result


def sizes(name: str) -> tuple[int, int]:
    fields = GRIDS.get(name, 1)
    return fields * 10**2, fields * 60**2


@pytest.mark.parametrize("name", SCALABLE)
def test_a_scalable_residual_takes_as_many_operations_at_any_size(name: str) -> None:
    problem = problems.get(name)
    counted = []
    for n in sizes(name):
        z, args = problem.start(n), problem.args(n)
        with Operations() as operations:
            problem.function(z, *args)
        counted.append(operations.count)
        if name not in QUADRATIC_MEMORY:
            # A field with its walls has (m + 2)² ≤ 1.5 m² values for m ≥ 10.
            assert operations.largest <= 1.5 * n
    assert counted[0] == counted[1]


@pytest.mark.parametrize("name", ["bratu", "convection-diffusion", "driven-cavity"])
def test_krylov_steps_do_not_grow_with_the_grid(name: str) -> None:
    problem = problems.get(name)
    steps = []
    for m in (15, 31, 63):
        n = GRIDS[name] * m**2
        linear = GMRES(restart=100, preconditioner=problem.preconditioner(n))
        solution = root(
            problem.function, problem.start(n), *problem.args(n),
            solver=NewtonKrylov(linear_solver=linear), stopping=Stopping(rtol=1e-8),
        )  # fmt: skip
        steps.append(solution.counts.linear_iterations)
    # Without a preconditioner they would grow like m, by four; with it, forcing terms may differ.
    assert steps[2] <= 1.5 * steps[0]


# --- Preconditioners ----------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 7, 16])
def test_the_sine_transform_is_orthogonal_and_its_own_inverse(m: int) -> None:
    matrix = sine_transform(torch.eye(m, dtype=torch.float64))
    j = torch.arange(1, m + 1, dtype=torch.float64)
    exact = math.sqrt(2 / (m + 1)) * torch.sin(math.pi / (m + 1) * j.unsqueeze(1) * j)
    tolerance = 8 * m * 2.0**-52
    torch.testing.assert_close(matrix, exact, rtol=0, atol=tolerance)
    torch.testing.assert_close(
        matrix @ matrix, torch.eye(m, dtype=torch.float64), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("m", [1, 2, 9])
def test_fast_poisson_inverts_the_five_point_matrix(m: int) -> None:
    unit = torch.eye(m * m, dtype=torch.float64).unflatten(-1, (m, m))
    product = five_point(FastPoisson.on(m, torch.float64).solve(unit)).flatten(-2)
    # Condition number below (m + 1)².
    tolerance = 16 * (m + 1) ** 2 * 2.0**-52
    torch.testing.assert_close(
        product, torch.eye(m * m, dtype=torch.float64), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize(
    ("problem", "n"),
    [
        (problems.get("bratu", strength=0.0), 81),
        (problems.get("convection-diffusion", convection=0.0), 81),
        (problems.get("driven-cavity", reynolds=0.0), 8),
        (problems.get("driven-cavity", reynolds=0.0), 2 * 49),
    ],
    ids=str,
)
def test_without_its_nonlinear_part_a_preconditioner_is_the_inverse(
    problem: TestProblem, n: int
) -> None:
    residual_slope = -torch.func.jacrev(problem.residual)(problem.start(n))
    inverse = problem.preconditioner(n)
    assert inverse is not None
    product = inverse(residual_slope.mT.contiguous())
    tolerance = 4 * torch.linalg.cond(residual_slope).item() * 2.0**-52
    torch.testing.assert_close(product, torch.eye(n, dtype=torch.float64), rtol=0, atol=tolerance)


def test_a_problem_without_preconditioner_says_so() -> None:
    assert problems.get("broyden-tridiagonal").preconditioner(100) is None


# --- Answers -------------------------------------------------------------------------------------


def test_bratu_has_its_fold_between_6_75_and_6_8_on_12_nodes() -> None:
    assert newton(problems.get("bratu", strength=6.75)) is not None
    assert newton(problems.get("bratu", strength=6.8)) is None


def test_convection_and_diffusion_is_consistent_to_second_order() -> None:
    def exact_source(x: Tensor, y: Tensor) -> Tensor:
        def u(x: Tensor, y: Tensor) -> Tensor:
            return 10 * x * y * (1 - x) * (1 - y) * torch.exp(x**4.5)

        def along(f, i):
            return lambda x, y: torch.func.grad(lambda p: f(*p).sum())((x, y))[i]

        u_x, u_y = along(u, 0), along(u, 1)
        return -along(u_x, 0)(x, y) - along(u_y, 1)(x, y) + 20 * u(x, y) * (u_x(x, y) + u_y(x, y))

    errors = []
    for m in (20, 41):
        line = torch.arange(1, m + 1, dtype=torch.float64) / (m + 1)
        y, x = torch.meshgrid(line, line, indexing="ij")
        (scaled,) = problems.get("convection-diffusion").args(m * m)
        source = scaled.unflatten(0, (m, m)) * (m + 1) ** 2
        # Away from x = 1, where derivatives of the exponential are largest.
        errors.append((source - exact_source(x, y)).abs()[:, : m // 2].max().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_the_cavity_has_the_vortex_of_ghia_ghia_and_shin() -> None:
    problem = problems.get("driven-cavity")
    found = {}
    for m in (63, 127):
        n = 2 * m * m
        solver = NewtonKrylov(GMRES(restart=100, preconditioner=problem.preconditioner(n)))
        z = root(problem.function, problem.start(n), *problem.args(n), solver=solver).value
        stream, vorticity = z.unflatten(0, (2, m, m))
        row, column = divmod(int(stream.argmin()), m)
        found[m] = (stream.min().item(), (column + 1) / (m + 1), (row + 1) / (m + 1))
        at_centre = vorticity[row, column].item()
    # On 128² intervals, as theirs; errors of second order: their differences bound it.
    error = abs(found[127][0] - found[63][0])
    assert found[127][0] == pytest.approx(-0.103423, abs=error / 3)
    assert found[127][1:] == pytest.approx((0.6172, 0.7344), abs=1e-4)
    assert at_centre == pytest.approx(-3.16646, rel=1e-2)


def test_the_brusselator_is_its_loop() -> None:
    problem = problems.get("brusselator")
    m, generator = 8, np.random.default_rng(0)  # One node lies in the disc.
    u, v = generator.standard_normal((2, m, m))
    expected = np.zeros((2, m, m))
    for i in range(m):
        for j in range(m):
            x, y = i / (m - 1), j / (m - 1)
            around = [((i + 1) % m, j), ((i - 1) % m, j), (i, (j + 1) % m), (i, (j - 1) % m)]
            spread = [10 * (m - 1) ** 2 * (sum(w[k] for k in around) - 4 * w[i, j]) for w in (u, v)]
            source = 5.0 if (x - 0.3) ** 2 + (y - 0.6) ** 2 <= 0.01 else 0.0
            reaction = u[i, j] ** 2 * v[i, j]
            expected[0, i, j] = spread[0] + 1 + reaction - 4.4 * u[i, j] + source
            expected[1, i, j] = spread[1] + 3.4 * u[i, j] - reaction
    value = problem.residual(torch.from_numpy(np.stack((u, v)).ravel()))
    np.testing.assert_allclose(value.numpy(), expected.ravel(), rtol=0, atol=1e-10)
    start = problem.start(2 * m * m).unflatten(0, (2, m, m))
    # 22 (y(1−y))^1.5 does not depend on x, the first axis.
    assert start[0, 0, 1].item() == pytest.approx(22 * (6 / 49) ** 1.5)
    assert start[1, 1, 0].item() == pytest.approx(27 * (6 / 49) ** 1.5)


def test_power_flow_is_the_complex_equation() -> None:
    buses, loading = 6, 1.3
    generator = np.random.default_rng(1)
    voltage = generator.standard_normal(buses) + 1j * generator.standard_normal(buses)
    admittance = buses / (0.1 + 0.2j)
    along = np.concatenate(([1.0], voltage))
    currents = [admittance * (along[k] - along[k - 1]) for k in range(1, buses + 1)]
    currents = [c - (currents[k + 1] if k + 1 < buses else 0) for k, c in enumerate(currents)]
    power = voltage * np.conj(currents) + loading * (1 + 0.5j) / buses
    z = torch.from_numpy(np.concatenate((voltage.real, voltage.imag)))
    value = problems.get("power-flow", loading=loading).residual(z)
    expected = np.concatenate((power.real, power.imag))
    np.testing.assert_allclose(value.numpy(), expected, rtol=0, atol=1e-12)


def test_the_voltage_collapses_at_the_nose() -> None:
    # One bus: 10/9 by hand. 100 buses: 2.603, by sweeping from the end.
    assert len(problems.get("power-flow", loading=10 / 9 - 1e-9).roots(2)) == 2
    assert problems.get("power-flow", loading=10 / 9 + 1e-9).roots(2) == ()
    assert newton(problems.get("power-flow", loading=2.55), 200) is not None
    assert newton(problems.get("power-flow", loading=2.65), 200) is None


def test_propane_has_the_published_root() -> None:
    published = [3.114102e-3, 3.459792e1, 6.504178e-2, 8.593781e-1, 3.695186e-2]
    physical = problems.get("propane-equilibrium").roots()[0].value
    torch.testing.assert_close(
        physical, torch.tensor(published, dtype=torch.float64), rtol=2e-7, atol=0
    )


def test_troesch_has_the_published_slopes() -> None:
    n = 20_000
    (y,) = (known.value for known in problems.get("troesch").roots(n))
    # Extrapolated to the ends from the equation: y(h) = h y′(0) + O(h³).
    assert y[0].item() * (n + 1) == pytest.approx(3.5833778463e-4, rel=1e-4)
    # y′(1) = 148.40642116; y″(1) = 10 sinh 10, and the next term is of size h² y‴/6 ≈ 1e-4 y′.
    h = 1 / (n + 1)
    slope = (1 - y[-1].item()) / h + h / 2 * 10 * math.sinh(10)
    assert slope == pytest.approx(148.40642116, rel=1e-3)


def test_plain_newton_solves_the_battery_where_a_line_search_stalls() -> None:
    problem = problems.get("battery")
    (known,) = problem.roots()
    z = problem.start()
    for _ in range(11):
        z = newton_step(problem.residual, z)
    assert problem.residual(z).norm().item() <= 4e-6
    torch.testing.assert_close(z, known.value, rtol=1e-8, atol=1e-12)

    z = problem.start()
    for _ in range(60):
        value, length = problem.residual(z), 1.0
        step = z - newton_step(problem.residual, z)
        while problem.residual(z - length * step).norm() > (1 - 1e-4 * length) * value.norm():
            length /= 2
        z = z - length * step
    # It started at 292.3.
    assert problem.residual(z).norm().item() > 270


def test_kepler_is_a_batch_of_orbits() -> None:
    problem = problems.get("kepler", count=50, largest_eccentricity=0.999)
    solution = root(problem.function, problem.start(), *problem.args(), batch_dims=1,
                    batched_args=(True, True), stopping=Stopping(rtol=1e-12))  # fmt: skip
    assert bool(solution.converged.all())
    error = (solution.value - problem.roots()[0].value).abs()
    slope = 1 - problem.args()[0] * torch.cos(solution.value)
    assert bool((error * slope <= 1e-11).all())


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("bratu", {"strength": float("nan")}, "strength must be a finite number"),
        ("convection-diffusion", {"convection": -1}, "convection must be a number ≥ 0"),
        ("driven-cavity", {"reynolds": "high"}, "reynolds must be a number ≥ 0"),
        ("brusselator", {"rate": 0}, "rate must be a number > 0"),
        ("power-flow", {"loading": -1}, "loading must be a number ≥ 0"),
        ("kepler", {"count": 0}, "count must be an integer ≥ 1"),
        ("kepler", {"largest_eccentricity": 1.0}, r"largest_eccentricity must be in \[0, 1\)"),
        ("troesch", {"steepness": 0}, "steepness must be a number > 0"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(
    name: str, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        problems.get(name, **parameters)


def test_a_grid_names_the_nearest_size() -> None:
    with pytest.raises(ValueError, match="bratu allows n = m² with m ≥ 1, got 1000; nearest: 1024"):
        problems.get("bratu").start(1000)
    with pytest.raises(ValueError, match="got 99; nearest: 98"):
        problems.get("driven-cavity").start(99)
