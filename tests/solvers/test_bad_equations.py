"""Equations that misbehave, with every solver: a clear error, or a status while the others finish."""

from __future__ import annotations

import pytest
import torch
from implicitly import FixedPointIteration, ScipyRoot, Solver, Status, SteadyState, root
from torch import Tensor

from .references import NONLINEAR

SOLVERS = {**NONLINEAR, "ScipyRoot": ScipyRoot(), "SteadyState": SteadyState()}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
START = torch.full((3, 2), 1.3, dtype=torch.float64)


@every_solver
def test_a_function_that_changes_its_shape_is_an_error(solver: Solver) -> None:
    calls = 0

    def changing(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        value = z * z - 2
        return value if calls < 3 else value[:, :1]

    with pytest.raises(ValueError, match=r"must return the shape of its unknown: z0 has shape"):
        root(changing, START, solver=solver, batch_dims=1)


@every_solver
def test_an_error_of_the_program_in_a_later_call_passes(solver: Solver) -> None:
    calls = 0

    def raising(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise TypeError("no more")
        return z * z - 2

    with pytest.raises(TypeError, match="no more"):
        root(raising, START, solver=solver, batch_dims=1)


@every_solver
def test_a_function_that_ignores_its_unknown_is_not_solved(solver: Solver) -> None:
    solution = root(torch.ones_like, START, solver=solver, batch_dims=1, on_failure="accept")
    assert not solution.converged.any()


@every_solver
def test_a_system_that_is_nan_from_the_start_ends_so_and_the_others_finish(solver: Solver) -> None:
    poison = torch.tensor([[0.0], [torch.nan], [0.0]], dtype=torch.float64)

    def partly(z: Tensor) -> Tensor:
        return z * z - 2 + poison

    solution = root(partly, START, solver=solver, batch_dims=1, on_failure="accept")
    others = solution.status[[0, 2]].tolist()
    assert solution.status[1] == Status.NON_FINITE
    # Plain iteration on z² − 2 leads away from the root.
    expands = isinstance(solver, FixedPointIteration)
    assert others == [Status.STALLED if expands else Status.CONVERGED] * 2
