"""Solvers that the driver steps, and equations that show what it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from implicitly import (
    Solution,
    Solver,
    Status,
)
from torch import Tensor

from .references import (
    FORMS,
    LINEAR,
    STEPPED,
    Form,
    TanhSystems,
    solve_form,
    tanh_map,
)

# What runs whole is not stepped here; see test_whole_solvers.py.
DRIVEN = {**STEPPED, **LINEAR}
every_solver = pytest.mark.parametrize("solver", DRIVEN.values(), ids=DRIVEN.keys())
every_nonlinear_solver = pytest.mark.parametrize("solver", STEPPED.values(), ids=STEPPED.keys())
every_linear_solver = pytest.mark.parametrize("solver", LINEAR.values(), ids=LINEAR.keys())
every_form = pytest.mark.parametrize("form", FORMS)

ZERO = torch.zeros((), dtype=torch.float64)
ONE = torch.ones((), dtype=torch.float64)


def status_of(solution: Solution) -> Status:
    return Status(int(solution.status))


def affine_equation(n: int, radius: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    M = generator.standard_normal((n, n))
    M *= radius / np.abs(np.linalg.eigvals(M)).max()
    return torch.from_numpy(M), torch.from_numpy(generator.standard_normal(n))


def affine(z: Tensor, M: Tensor, c: Tensor) -> Tensor:
    return M @ z + c


def steps_towards_tolerance(solver: Solver, form: Form, **options: Any) -> Solution:
    """An equation that every solver solves, affine for those that need it."""
    if solver.linear_only:
        M, c = affine_equation(12, 0.8)
        return solve_form(
            form, affine, torch.zeros_like(c), M, c, solver=solver, linear=True, **options
        )
    W, x = TanhSystems.draw(1, 12, 0.8, seed=0).tensors(torch.float64)
    return solve_form(
        form, tanh_map, torch.zeros(1, 12, dtype=torch.float64), W, x, solver=solver, **options
    )
