"""Steady states: where a flow leads, in any units, system by system."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
import torchdiffeq
from implicitly import SolveError, Status, SteadyState, Stopping, fixed_point, root
from torch import Tensor

from .references import TanhSystems, as_float64, tanh_map

SOLVERS: dict[str, Any] = sys.modules[torchdiffeq.odeint.__module__].SOLVERS


def test_every_method_of_this_torchdiffeq_is_there_with_no_option_that_it_does_not_take() -> None:
    with pytest.raises(ValueError, match="method must be one of") as refused:
        SteadyState("rk45")
    listed = str(refused.value).split("one of ")[1].split(", got")[0]
    methods = [name.strip("'") for name in listed.split(", ")]
    assert set(methods) == set(SOLVERS)
    for method in methods:
        with pytest.raises(TypeError, match="has no option 'nonsense'") as e:
            SteadyState(method, options={"nonsense": 1})
        options = set(str(e.value).split("Its options: ")[1].split(", "))
        taken = {
            name
            for kind in SOLVERS[method].__mro__[:-1]
            for name in inspect.signature(kind.__init__).parameters
        }
        assert options <= taken


def test_the_flow_ends_in_the_basin_in_which_it_starts() -> None:
    z0 = torch.tensor([-2.0, -0.5, -1e-3, 1e-3, 0.5, 2.0], dtype=torch.float64)
    z = fixed_point(lambda z: torch.tanh(2 * z), z0, solver=SteadyState(), batch_dims=1).value
    # tanh(2z) = z has the roots 0, unstable, and ±z₁.
    stable = scipy.optimize.brentq(lambda z: np.tanh(2 * z) - z, 0.5, 1, xtol=1e-15)
    # |r′| = 1 − 2 (1 − z₁²) ≥ 0.8 there.
    np.testing.assert_allclose(
        as_float64(z), np.sign(as_float64(z0)) * stable, rtol=0, atol=1.3e-10
    )


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "rk4"])
@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])
def test_units_of_equation_and_unknown_change_no_step(method: str, factor: float) -> None:
    W, x = TanhSystems.draw(2, 4, 0.8, seed=3).tensors(torch.float64)
    solver = SteadyState(method)

    def steps(equation: float, unknown: float) -> tuple[Tensor, Tensor]:
        solution = root(
            lambda z: equation * (z / unknown - tanh_map(z / unknown, W, x)),
            torch.zeros_like(x), solver=solver, batch_dims=1,
        )  # fmt: skip
        return solution.steps, solution.value / unknown

    plain, scaled, stretched = steps(1.0, 1.0), steps(factor, 1.0), steps(1.0, factor)
    for other in (scaled, stretched):
        assert torch.equal(other[0], plain[0])
        # torchdiffeq rounds times that are no powers of two.
        torch.testing.assert_close(other[1], plain[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["dopri5", "rk4", "scipy_solver"])
def test_one_flow_that_runs_away_leaves_the_others_as_they_are(method: str) -> None:
    slope = torch.tensor([0.5, 3.0, -0.5], dtype=torch.float64)

    def solve(slope: Tensor) -> Any:
        return fixed_point(
            lambda z, slope: slope * z + 1, torch.zeros_like(slope), slope,
            solver=SteadyState(method), batch_dims=1, on_failure="accept",
        )  # fmt: skip

    beside, alone = solve(slope), solve(slope[[0, 2]])
    assert beside.status.tolist() == [Status.CONVERGED, Status.DIVERGED, Status.CONVERGED]
    assert torch.equal(beside.value[[0, 2]], alone.value)
    assert torch.equal(beside.steps[[0, 2]], alone.steps)
    if method == "rk4":
        # The residual grows as e^{2t}, and by steps of a half passes 1e10 at t = 11.5 or soon after.
        assert 23 <= beside.steps[1].item() <= 26


def test_a_state_that_leaves_the_domain_is_not_finite_and_the_reason_is_given() -> None:
    # dz/dt = −1 − √z reaches zero, and goes no further.
    with pytest.raises(SolveError) as e:
        root(lambda z: 1 + torch.sqrt(z), torch.ones(1, dtype=torch.float64), solver=SteadyState())
    assert e.value.solution.status.item() in (Status.NON_FINITE, Status.STALLED)
    assert e.value.solution.residual_norm.item() >= 1


def test_given_tolerances_make_the_path_accurate() -> None:
    # A slow and a fast rate: loose tolerances take few steps, tight ones many.
    def steps(**tolerances: Any) -> int:
        rates = torch.tensor([1.0, 20.0], dtype=torch.float64)
        solution = root(
            lambda z: rates * (z - 1), torch.zeros(2, dtype=torch.float64),
            solver=SteadyState(**tolerances), stopping=Stopping(rtol=0.0, atol=1.42e-5),
        )  # fmt: skip
        # rates · error ≤ 1e-6 of the first residual, 14.2 in root-mean-square.
        np.testing.assert_allclose(as_float64(solution.value), 1.0, rtol=0, atol=2.1e-5)
        return int(solution.steps)

    assert steps() < steps(rtol=1e-10, atol=1e-12) / 2


def test_numbers_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="step_size must be a number > 0, got 0"):
        SteadyState("rk4", step_size=0)
    with pytest.raises(ValueError, match="rtol must be a number ≥ 0 or None, got -1"):
        SteadyState(rtol=-1)
