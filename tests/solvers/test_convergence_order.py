"""The observed orders of convergence, from traces in float64 where the asymptotic regime shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from implicitly import (
    Anderson,
    BiCGStab,
    Broyden,
    FixedPointIteration,
    LevenbergMarquardt,
    LineSearch,
    Newton,
    NewtonKrylov,
    NonmonotoneLineSearch,
    PseudoTransient,
    Solver,
    Stopping,
    fixed_point,
    root,
)
from oracle import Array
from torch import Tensor


def residual_norms(solver: Solver) -> Array:
    """Norms of the residual of a system of cubic equations, coupled and smooth, near its root."""
    n = 6
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5 + 2 * torch.eye(n)
    target = torch.ones(n, dtype=torch.float64)

    def F(z: Tensor) -> Tensor:
        return A @ (z - target) + (z**3 - target)

    solution = root(
        F, target + 0.4, solver=solver, trace=True, on_failure="accept",
        stopping=Stopping(rtol=1e-15, max_steps=60),
    )  # fmt: skip
    assert solution.trace is not None
    norms = solution.trace[:, 0]
    # Below this, rounding of F, of size eps · ‖A‖ · ‖z‖, shows.
    return np.asarray(norms[norms > 1e-13])


def orders(norms: Array) -> Array:
    """`log(e_{k+1} / e_k) / log(e_k / e_{k−1})`, the order seen at each step."""
    logs = np.log(norms)
    return np.asarray((logs[2:] - logs[1:-1]) / (logs[1:-1] - logs[:-2]))


QUADRATIC = {
    "trust region": Newton(),
    "line search": Newton(globalisation=LineSearch()),
    "nonmonotone": Newton(globalisation=NonmonotoneLineSearch()),
    "full steps": Newton(globalisation=None),
    "Levenberg–Marquardt": LevenbergMarquardt(first_damping=0.1),
    "pseudo-transient": PseudoTransient(),
}


@pytest.mark.parametrize("solver", QUADRATIC.values(), ids=QUADRATIC.keys())
def test_newtons_method_converges_quadratically(solver: Solver) -> None:
    norms = residual_norms(solver)
    assert len(norms) >= 4
    assert orders(norms)[-1] > 1.8
    # e_{k+1} ≤ C e_k² with one and the same C.
    constants = norms[1:] / norms[:-1] ** 2
    if isinstance(solver, (LevenbergMarquardt, PseudoTransient)):
        constants = constants[1:]  # Their damping is not yet that of the asymptotic regime.
    assert constants.max() / constants.min() < 5


def test_shamanskii_steps_have_an_order_of_one_more_than_their_number() -> None:
    norms = residual_norms(Newton(refresh=2))
    # One cycle is a Newton step and one with the same factors: e ← C e³ (Kelley 1995, 5.4.3).
    cycles = norms[::2]
    assert orders(cycles)[-1] > 2.6


def test_a_chord_method_converges_linearly() -> None:
    norms = residual_norms(Newton(refresh=None))
    factors = norms[1:] / norms[:-1]
    # The rate that the distance of the Jacobians allows, in the end the same in each step.
    assert factors.max() < 0.5
    np.testing.assert_allclose(factors[-1], factors[-2], rtol=0.3)


@pytest.mark.parametrize("linear_solver", [None, BiCGStab()], ids=["GMRES", "BiCGStab"])
def test_newton_krylov_converges_superlinearly(linear_solver: Solver | None) -> None:
    solver = NewtonKrylov() if linear_solver is None else NewtonKrylov(linear_solver=linear_solver)
    norms = residual_norms(solver)
    factors = norms[1:] / norms[:-1]
    assert factors[-1] < 1e-3
    assert (factors[2:] < 0.5 * factors[1:-1]).all()
    # Eisenstat & Walker's choice 2 has order (1 + √5) / 2 and more: here, with margin, 1.4.
    assert orders(norms)[-1] > 1.4


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_broyden_converges_superlinearly(kind: str) -> None:
    norms = residual_norms(Broyden(kind=kind))  # type: ignore[arg-type]
    # Factors over stretches of n steps fall: the order per step is 2^(1/2n) at least (Gay 1979).
    n = 6
    factors = norms[n:] / norms[:-n]
    assert factors[-1] < 1e-2 * factors[0]
    assert norms[-1] / norms[-2] < 0.2


def test_plain_iteration_converges_linearly_at_the_rate_of_the_derivative() -> None:
    trace = fixed_point(
        torch.cos, torch.zeros((), dtype=torch.float64), solver=FixedPointIteration(), trace=True
    ).trace
    assert trace is not None
    # |cos'| at the fixed point.
    rate = np.sin(0.7390851332151607)
    np.testing.assert_allclose(trace[-1, 0] / trace[-2, 0], rate, rtol=1e-4)


def test_anderson_converges_faster_than_any_fixed_rate_in_one_dimension() -> None:
    trace = fixed_point(
        torch.cos, torch.zeros((), dtype=torch.float64), solver=Anderson(memory=1), trace=True,
        stopping=Stopping(rtol=1e-14),
    ).trace  # fmt: skip
    assert trace is not None
    norms = trace[:, 0]
    norms = norms[norms > 1e-15]
    # The secant method: order 1.618.
    assert orders(norms)[-1] > 1.4
