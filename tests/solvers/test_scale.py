"""The units of the equation and of the unknown change no solver's number of steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    Anderson,
    FixedPointIteration,
    NeumannSeries,
    Solution,
    Solver,
    fixed_point,
    root,
)
from pairs import few_examples
from torch import Tensor

from .references import ALL, NONLINEAR, TanhSystems, affine_map, tanh_map

FACTORS = (1e-6, 1e6)

# These two know no units: their step for a root is the residual itself.
UNIT_BOUND = (FixedPointIteration, NeumannSeries)
knows_units = pytest.mark.parametrize(
    "solver",
    [solver for solver in ALL.values() if not isinstance(solver, UNIT_BOUND)],
    ids=[name for name, solver in ALL.items() if not isinstance(solver, UNIT_BOUND)],
)
small_systems = given(
    n=st.integers(1, 8), norm=st.sampled_from([0.5, 0.9]), seed=st.integers(0, 1000)
)


def draw(n: int, norm: float, seed: int) -> tuple[Tensor, Tensor]:
    return TanhSystems.draw(3, n, norm, seed).tensors(torch.float64)


def function_for(solver: Solver) -> object:
    return affine_map if solver.linear_only else tanh_map


def solve_root(
    solver: Solver, n: int, norm: float, seed: int, equation: float, unknown: float
) -> Solution:
    """The root of `equation · (z/unknown − f(z/unknown))`."""
    f = function_for(solver)

    def scaled(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        inner = z / unknown
        return equation * (inner - f(inner, W, x))  # type: ignore[operator]

    W, x = draw(n, norm, seed)
    return root(
        scaled, torch.zeros_like(x), W, x, solver=solver, batch_dims=1, linear=solver.linear_only,
        on_failure="accept",
    )  # fmt: skip


def solve_fixed_point(solver: Solver, n: int, norm: float, seed: int, unknown: float) -> Solution:
    f = function_for(solver)

    def scaled(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        return unknown * f(z / unknown, W, x)  # type: ignore[operator]

    W, x = draw(n, norm, seed)
    return fixed_point(
        scaled, torch.zeros_like(x), W, x, solver=solver, batch_dims=1, linear=solver.linear_only
    )


def same_steps(one: Solution, other: Solution) -> bool:
    return bool(((one.steps - other.steps).abs() <= 1).all())


@knows_units
@few_examples(2)
@small_systems
def test_powers_of_two_change_nothing_but_the_exponents(
    solver: Solver, n: int, norm: float, seed: int
) -> None:
    # No digit changes, and every threshold and regularisation is relative: the same iteration.
    plain = solve_root(solver, n, norm, seed, 1.0, 1.0)
    for factor in (2.0**-20, 2.0**20):
        equation = solve_root(solver, n, norm, seed, factor, 1.0)
        assert torch.equal(equation.steps, plain.steps)
        assert torch.equal(equation.value, plain.value)
        unknown = solve_root(solver, n, norm, seed, 1.0, factor)
        assert torch.equal(unknown.steps, plain.steps)
        assert torch.equal(unknown.value, factor * plain.value)


# Type I amplifies the rounding of 1e±6 · z; what it makes of exact scaling is tested above.
well_behaved = pytest.mark.parametrize(
    "solver",
    [s for s in ALL.values() if not isinstance(s, UNIT_BOUND) and s != Anderson(kind="I")],
    ids=[k for k, s in ALL.items() if not isinstance(s, UNIT_BOUND) and s != Anderson(kind="I")],
)


@well_behaved
@few_examples(2)
@small_systems
def test_multiplying_the_equation_changes_no_number_of_steps(
    solver: Solver, n: int, norm: float, seed: int
) -> None:
    plain = solve_root(solver, n, norm, seed, 1.0, 1.0)
    assert bool(plain.converged.all())
    for factor in FACTORS:
        scaled = solve_root(solver, n, norm, seed, factor, 1.0)
        assert same_steps(plain, scaled)
        # Both are within 1e-10 of ‖r(z0)‖ ≤ √8·3, over 1 − 0.9.
        torch.testing.assert_close(scaled.value, plain.value, rtol=0, atol=2 * 1e-10 * 9 / 0.1)


@well_behaved
@few_examples(2)
@small_systems
def test_multiplying_the_unknown_of_a_root_changes_no_number_of_steps(
    solver: Solver, n: int, norm: float, seed: int
) -> None:
    plain = solve_root(solver, n, norm, seed, 1.0, 1.0)
    assert bool(plain.converged.all())
    for factor in FACTORS:
        scaled = solve_root(solver, n, norm, seed, 1.0, factor)
        assert same_steps(plain, scaled)
        torch.testing.assert_close(
            scaled.value / factor, plain.value, rtol=0, atol=2 * 1e-10 * 9 / 0.1
        )


@pytest.mark.parametrize("solver", ALL.values(), ids=ALL.keys())
@few_examples(2)
@small_systems
def test_multiplying_the_unknown_of_a_fixed_point_changes_no_number_of_steps(
    solver: Solver, n: int, norm: float, seed: int
) -> None:
    plain = solve_fixed_point(solver, n, norm, seed, 1.0)
    for factor in FACTORS:
        assert same_steps(plain, solve_fixed_point(solver, n, norm, seed, factor))


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize(
    "solver",
    [solver for name, solver in NONLINEAR.items() if name != "FixedPointIteration"],
    ids=[name for name in NONLINEAR if name != "FixedPointIteration"],
)
def test_the_sign_of_an_equation_does_not_matter(solver: Solver, sign: float) -> None:
    plain = solve_root(solver, 4, 0.9, 1, 1.0, 1.0)
    assert same_steps(plain, solve_root(solver, 4, 0.9, 1, sign, 1.0))


@pytest.mark.parametrize("solver", NONLINEAR.values(), ids=NONLINEAR.keys())
def test_scaled_unknowns_in_float32_take_as_many_steps_as_others(solver: Solver) -> None:
    W, x = TanhSystems.draw(3, 6, 0.8, 0, torch.float32).tensors(torch.float32)
    steps = []
    for unknown in (1.0, 2.0**-20, 2.0**20):
        solution = fixed_point(
            lambda z, unknown=unknown: unknown * tanh_map(z / unknown, W, x),
            torch.zeros_like(x), solver=solver, batch_dims=1,
        )  # fmt: skip
        steps.append(solution.steps)
    for other in steps[1:]:
        assert torch.equal(other, steps[0])
