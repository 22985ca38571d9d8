"""Anderson acceleration: never behind plain iteration on linear maps, and exact in few dimensions."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    Anderson,
    FixedPointIteration,
    Solution,
    SolveError,
    Solver,
    Stopping,
    fixed_point,
)
from oracle import KINDS, Array, Kind, iteration_matrix
from pairs import few_examples

Type = Literal["I", "II"]


def solve_linear(
    M: Array, c: Array, solver: Solver, stopping: Stopping | None = None, accept: bool = False
) -> Solution:
    matrix, constant = torch.from_numpy(M), torch.from_numpy(c)
    return fixed_point(
        lambda z: matrix @ z + constant, torch.zeros_like(constant), solver=solver,
        stopping=stopping, on_failure="accept" if accept else "raise",
    )  # fmt: skip


def evaluations_beyond_plain_iteration(kind: Type, M: Array, c: Array) -> int:
    """How many more evaluations Anderson needs than the plain iteration, which may take all it wants."""
    accelerated = solve_linear(M, c, Anderson(kind=kind))
    plain = solve_linear(M, c, FixedPointIteration(), Stopping(max_steps=10_000))
    return accelerated.evaluations - plain.evaluations


@pytest.mark.parametrize("spectrum", KINDS)
@few_examples(8)
@given(
    n=st.integers(1, 30),
    radius=st.sampled_from([0.5, 0.7, 0.9, 0.95, 0.99]),
    seed=st.integers(0, 10_000),
)
def test_linear_maps_never_take_more_evaluations_than_plain_iteration(
    spectrum: Kind, n: int, radius: float, seed: int
) -> None:
    M = iteration_matrix(spectrum, n, radius, seed)
    c = np.random.default_rng(seed).standard_normal(n)
    assert evaluations_beyond_plain_iteration("II", M, c) <= 0


@pytest.mark.parametrize(
    "spectrum",
    [
        "symmetric",
        "mildly non-normal",
        pytest.param(
            "rotations",
            marks=pytest.mark.xfail(
                strict=True,
                raises=(SolveError, AssertionError),
                reason="the equations of type I may be nearly singular far from the root: on spectra "
                "off the real axis it is slower than plain iteration",
            ),
        ),
    ],
)
@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(10, 40), marks=pytest.mark.long)])
def test_type_one_keeps_up_with_plain_iteration_too(spectrum: Kind, seeds: range) -> None:
    for seed in seeds:
        M = iteration_matrix(spectrum, 20, 0.95, seed)
        c = np.random.default_rng(seed).standard_normal(20)
        assert evaluations_beyond_plain_iteration("I", M, c) <= 0


def textbook_iterates(kind: Type, M: Array, c: Array, mixing: float, memory: int) -> list[Array]:
    """Iterates for `r(z) = M z + c + 0.1 sin z − z` from the differences and a dense solver."""
    points, residuals = [np.zeros(len(c))], []
    for _ in range(9):
        z = points[-1]
        residuals.append(M @ z + c + 0.1 * np.sin(z) - z)
        moves = np.diff(points, axis=0)[-memory:].T
        changes = np.diff(residuals, axis=0)[-memory:].T
        following = z + mixing * residuals[-1]
        if moves.size:
            test = changes if kind == "II" else moves
            # Scaled columns; the equations of type II are those of least squares.
            test = test / np.linalg.norm(test, axis=0)
            weights = np.linalg.solve(test.T @ changes, test.T @ residuals[-1])
            following = following - (moves + mixing * changes) @ weights
        points.append(following)
    return points


@pytest.mark.parametrize("kind", ["I", "II"])
@pytest.mark.parametrize("mixing", [0.5, 1.0])
@pytest.mark.parametrize("memory", [1, 3, 20])
def test_iterates_are_those_of_the_textbook(kind: Type, mixing: float, memory: int) -> None:
    M = iteration_matrix("rotations", 30, 0.9, 1)
    c = np.random.default_rng(1).standard_normal(30)
    matrix, constant = torch.from_numpy(M), torch.from_numpy(c)
    points = textbook_iterates(kind, M, c, mixing, memory)
    norms = [np.linalg.norm(M @ z + c + 0.1 * np.sin(z) - z) for z in points]
    for steps in (1, 2, 5, 9):
        solution = fixed_point(
            lambda z: matrix @ z + constant + 0.1 * torch.sin(z),
            torch.zeros_like(constant),
            solver=Anderson(memory=memory, mixing=mixing, kind=kind, safeguard=None),
            stopping=Stopping(max_steps=steps, rtol=1e-14),
            on_failure="accept",
        )
        # What comes back is the best so far.
        expected = points[int(np.argmin(norms[: steps + 1]))]
        # Rounding and the regularisation, 16 eps, times condition numbers of up to 1e5.
        np.testing.assert_allclose(solution.value.numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["I", "II"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_linear_maps_in_few_dimensions_end_after_as_many_steps(kind: Type, n: int) -> None:
    # With n moves the extrapolation is exact: a step to it, one to see it, and one for rounding.
    M = iteration_matrix("symmetric", n, 0.9, seed=n)
    solution = solve_linear(M, np.ones(n), Anderson(kind=kind, memory=5))
    assert int(solution.steps) <= n + 2


def test_type_two_without_truncation_is_gmres() -> None:
    # Walker & Ni 2011, theorem 2.2: z_{k+1} = z_k^GMRES + r_k^GMRES while GMRES does not stagnate.
    n = 12
    generator = np.random.default_rng(0)
    M = 0.5 * generator.standard_normal((n, n)) / np.sqrt(n)
    c = generator.standard_normal(n)
    for k in range(1, 6):
        z = solve_linear(M, c, Anderson(memory=20), Stopping(max_steps=k + 1), accept=True)
        krylov = np.linalg.qr(
            np.stack([np.linalg.matrix_power(M - np.eye(n), i) @ c for i in range(k)], axis=1)
        )[0]
        A = np.eye(n) - M
        best = krylov @ np.linalg.lstsq(A @ krylov, c)[0]
        np.testing.assert_allclose(z.value.numpy(), M @ best + c, rtol=0, atol=1e-8)


@pytest.mark.parametrize("mixing", [0.3, 1.0])
def test_memory_of_one_is_the_secant_method_for_one_unknown(mixing: float) -> None:
    z = [1.0]
    residuals = [np.cos(1.0) - 1.0]
    z.append(z[0] + mixing * residuals[0])
    for _ in range(3):
        residuals.append(np.cos(z[-1]) - z[-1])
        slope = (residuals[-1] - residuals[-2]) / (z[-1] - z[-2])
        z.append(z[-1] - residuals[-1] / slope)
    for kind in ("I", "II"):
        solution = fixed_point(
            torch.cos, torch.ones((), dtype=torch.float64), on_failure="accept",
            solver=Anderson(memory=1, mixing=mixing, kind=kind),
            stopping=Stopping(max_steps=4, rtol=1e-14),
        )  # fmt: skip
        # The regularisation, 16 eps, moves the step by as much of the last change.
        assert solution.value.item() == pytest.approx(z[4], abs=1e-13)


def test_a_restart_forgets() -> None:
    M, c = iteration_matrix("rotations", 20, 0.9, 0), np.ones(20)
    # Restarted after every step, all that remains is the plain iteration.
    restarted = solve_linear(M, c, Anderson(restart=1), Stopping(max_steps=9), accept=True)
    plain = solve_linear(M, c, FixedPointIteration(), Stopping(max_steps=9), accept=True)
    torch.testing.assert_close(restarted.value, plain.value, rtol=0, atol=1e-13)
    kept = solve_linear(M, c, Anderson(), Stopping(max_steps=9), accept=True)
    assert not torch.allclose(kept.value, plain.value)


def test_jordan_blocks_never_take_more_evaluations_than_plain_iteration() -> None:
    # The residual of plain iteration grows before it falls. A limit on growth of ten at all times
    # lets moves lead astray on three of these.
    for seed in range(30):
        generator = np.random.default_rng(seed)
        n, radius = int(generator.integers(2, 17)), generator.uniform(0.5, 0.8)
        basis = np.linalg.qr(generator.standard_normal((n, n)))[0]
        M = basis @ (radius * np.eye(n) + 0.3 * np.eye(n, k=1)) @ basis.T
        assert evaluations_beyond_plain_iteration("II", M, generator.standard_normal(n)) <= 0


def test_maps_that_expand_in_some_directions_are_solved() -> None:
    # A limit on growth of one at all times solves next to none of these.
    for seed in range(20):
        generator = np.random.default_rng(seed)
        n = int(generator.integers(8, 41))
        values = generator.uniform(-0.8, 0.8, n)
        values[:3] = generator.choice([-1, 1]) * generator.uniform(1.2, 4.2, 3)
        basis = np.linalg.qr(generator.standard_normal((n, n)))[0]
        M = basis @ np.diag(values) @ basis.T
        solve_linear(M, generator.standard_normal(n), Anderson())


@pytest.mark.parametrize("kind", ["I", "II"])
def test_the_safeguard_forgets_where_the_residual_has_jumped(kind: Type) -> None:
    # The map jumps at 0.6, so that what was learnt on one side is wrong on the other.
    def f(z: torch.Tensor) -> torch.Tensor:
        return torch.where(z < 0.6, 0.5 * z + 0.31, 0.5 * z + 50.0)

    start = torch.zeros((), dtype=torch.float64)
    guarded = fixed_point(
        f, start, solver=Anderson(safeguard=10.0, kind=kind), stopping=Stopping(max_steps=60)
    )
    assert guarded.value.item() == pytest.approx(100.0, rel=1e-9)


@pytest.mark.parametrize("kind", ["I", "II"])
def test_the_step_after_forgetting_is_a_plain_one(kind: Type) -> None:
    M = iteration_matrix("symmetric", 6, 0.9, 0)
    c = np.random.default_rng(0).standard_normal(6)
    matrix, constant = torch.from_numpy(M), torch.from_numpy(c)
    points: list[torch.Tensor] = []

    def f(z: torch.Tensor) -> torch.Tensor:
        # From the fifth evaluation on a residual a thousand times as large.
        points.append(z.detach())
        value = matrix @ z + constant
        return value if len(points) < 5 else z + 1000 * (value - z)

    fixed_point(
        f, torch.zeros_like(constant), solver=Anderson(kind=kind), on_failure="accept",
        stopping=Stopping(max_steps=5),
    )  # fmt: skip
    plain = points[4] + 1000 * (matrix @ points[4] + constant - points[4])
    torch.testing.assert_close(points[5], plain, rtol=1e-13, atol=0)


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_residuals_whose_squares_all_but_leave_the_range_of_the_dtype_change_nothing(
    scale: float,
) -> None:
    M = torch.from_numpy(iteration_matrix("rotations", 20, 0.9, 2)).float()
    c = torch.from_numpy(np.random.default_rng(2).standard_normal(20)).float()

    def steps(scale: float) -> int:
        return int(
            fixed_point(
                lambda z: M @ z + scale * c, torch.zeros(20), solver=Anderson(),
                stopping=Stopping(rtol=1e-2, atol=0.0),
            ).steps
        )  # fmt: skip

    assert abs(steps(scale) - steps(1.0)) <= 1


def batch_of_rates(rates: list[float], n: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(
        torch.randn(len(rates), n, n, dtype=torch.float64, generator=generator)
    ).Q
    spread = torch.linspace(-1, 1, n, dtype=torch.float64)
    diagonal = torch.tensor(rates, dtype=torch.float64)[:, None, None] * spread
    x = torch.randn(len(rates), n, dtype=torch.float64, generator=generator)
    return axes * diagonal @ axes.mT, x


def many(z: torch.Tensor, A: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(torch.einsum("bij,bj->bi", A, z) + 0.1 * x)


@pytest.mark.parametrize("kind", ["I", "II"])
def test_plain_steps_while_these_are_fast_leave_every_system_alone(kind: Type) -> None:
    A, x = batch_of_rates([0.2, 0.95, 0.5, 0.99])
    solver = Anderson(kind=kind, plain_below=0.6)
    z0 = torch.zeros_like(x)
    together = fixed_point(many, z0, A, x, solver=solver, batch_dims=1)
    for i in range(4):
        # Beside others that stay fast for as long as they run.
        others = 0.1 * A
        others[i] = A[i]
        beside = fixed_point(many, z0, others, x, solver=solver, batch_dims=1)
        assert beside.steps[i] == together.steps[i]
        assert torch.equal(beside.value[i], together.value[i])
    # The fast ones take the steps of the plain iteration, to the same bits.
    plain = fixed_point(many, z0, A, x, solver=FixedPointIteration(), batch_dims=1,
                        stopping=Stopping(max_steps=10_000))  # fmt: skip
    assert plain.steps[0] == together.steps[0]
    assert torch.equal(plain.value[0], together.value[0])


@pytest.mark.parametrize("rate", [0.9, 0.99])
def test_slow_contractions_lose_nothing_by_a_plain_beginning(rate: float) -> None:
    A, x = batch_of_rates([rate])
    z0 = torch.zeros_like(x)
    first, later = (
        fixed_point(many, z0, A, x, solver=solver, batch_dims=1).evaluations
        for solver in (Anderson(), Anderson(plain_below=0.7))
    )
    assert later <= 1.1 * first


def test_a_plain_beginning_is_not_for_compiled_steps() -> None:
    with pytest.raises(ValueError, match="plain_below=None"):
        Anderson(compiled=True, plain_below=0.5)
    with pytest.raises(ValueError, match="plain_below must be positive"):
        Anderson(plain_below=0.0)
