"""Compiled steps of Anderson's and Broyden's methods: the same iterates as the steps in PyTorch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
import torch
from implicitly import Anderson, Broyden, Solver, Stopping, Unrolled, fixed_point, root
from implicitly.solvers import FlatSolution, Problem, solve
from implicitly.solvers.compiled import steps as compiled_steps
from torch import Tensor

from .references import TanhSystems, tanh_map

SOLVERS: dict[str, Solver] = {
    "Anderson": Anderson(compiled=True),
    "Anderson, two moves and restarts": Anderson(memory=2, restart=7, compiled=True),
    "Anderson without safeguard": Anderson(safeguard=None, mixing=0.7, compiled=True),
    "Broyden": Broyden(compiled=True),
    "Broyden, six updates": Broyden(memory=6, compiled=True),
    "Broyden without line search": Broyden(line_search=False, compiled=True),
}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def systems(dtype: torch.dtype, radius: float = 0.9) -> tuple[Tensor, Tensor]:
    return TanhSystems.draw(6, 20, radius, seed=3).tensors(dtype)


def run(solver: Solver, W: Tensor, x: Tensor, **options: Any) -> FlatSolution:
    return solve(Problem(lambda z: tanh_map(z, W, x), **options), solver, torch.zeros_like(x))


def interpreted(solver: Solver) -> Solver:
    return dataclasses.replace(solver, compiled=False)  # type: ignore[call-arg]


@every_solver
@every_dtype
@pytest.mark.parametrize("radius", [0.9, 4.0])
def test_both_take_the_same_steps(solver: Solver, dtype: torch.dtype, radius: float) -> None:
    W, x = systems(dtype, radius)
    problem = Problem(lambda z: tanh_map(z, W, x))
    z = torch.zeros_like(x)
    first = problem.residual(z)
    state, reference = solver.init(problem, z, first), interpreted(solver).init(problem, z, first)
    # Rounding grows by what the small systems of Anderson's method amplify; ten steps keep it small.
    tolerance = 1e4 * torch.finfo(dtype).eps
    for _ in range(10):
        state = solver.step(problem, state)
        reference = interpreted(solver).step(problem, reference)
        assert state.arrays is not None
        assert reference.arrays is None
        torch.testing.assert_close(state.z, reference.z, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(state.norm, reference.norm, rtol=tolerance, atol=tolerance)
        known = torch.linalg.vector_norm(state.z, dim=1)
        torch.testing.assert_close(state.z_norm, known)


@every_solver
def test_a_trial_that_is_not_finite_is_treated_alike(solver: Solver) -> None:
    W, x = systems(torch.float64, 4.0)

    def run_steps(solver: Solver) -> list[Tensor]:
        evaluations = 0

        def function(z: Tensor) -> Tensor:
            nonlocal evaluations
            evaluations += 1
            value = tanh_map(z, W, x)
            if evaluations == 4:
                value = value.index_fill(0, torch.tensor([1]), torch.nan)
            return value

        problem = Problem(function)
        state = solver.init(problem, torch.zeros_like(x), problem.residual(torch.zeros_like(x)))
        found = []
        for _ in range(8):
            state = solver.step(problem, state)
            found.append(state.z)
        return found

    for mine, reference in zip(run_steps(solver), run_steps(interpreted(solver)), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10, equal_nan=True)


@every_solver
def test_a_system_that_is_not_finite_changes_no_other_in_a_single_bit(solver: Solver) -> None:
    W, x = systems(torch.float64)
    alone = run(solver, W, x)
    x = x.clone()
    x[2] = torch.nan
    together = run(solver, W, x)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(together.z[others], alone.z[others])
    assert together.steps[others].tolist() == alone.steps[others].tolist()


@every_solver
def test_systems_that_have_ended_are_dropped(solver: Solver) -> None:
    W, x = systems(torch.float64)
    x = x.clone()
    x[:4] = 0.0  # Solved at the start.

    def restricted(rows: Tensor) -> Problem:
        return Problem(lambda z: tanh_map(z, W[rows], x[rows]))

    dropped, kept = run(solver, W, x, restrict=restricted), run(solver, W, x)
    torch.testing.assert_close(dropped.z, kept.z, rtol=0.0, atol=1e-12)
    assert dropped.steps.tolist() == kept.steps.tolist()


@every_solver
def test_a_root_uses_its_first_length(solver: Solver) -> None:
    W, x = systems(torch.float64)

    def F(z: Tensor) -> Tensor:
        return 1e6 * (z - tanh_map(z, W, x))

    def value(solver: Solver) -> Tensor:
        stopping = Stopping(rtol=1e-12)
        return root(F, torch.zeros_like(x), solver=solver, stopping=stopping, batch_dims=1).value

    # The step sizes differ at most by what a residual of 1e-12 of the first leaves open.
    torch.testing.assert_close(value(solver), value(interpreted(solver)), rtol=0.0, atol=1e-10)


@every_solver
def test_where_autograd_records_the_steps_are_those_of_pytorch(solver: Solver) -> None:
    W, x = systems(torch.float64)

    def gradient(solver: Solver) -> Tensor:
        leaf = x.clone().requires_grad_()
        stopping = Stopping(max_steps=6)
        z = fixed_point(
            lambda z, x: tanh_map(z, W, x), torch.zeros_like(x), leaf, solver=solver,
            gradient=Unrolled(), stopping=stopping, batch_dims=1, on_failure="accept",
        ).value  # fmt: skip
        return torch.autograd.grad(z.sum(), leaf)[0]

    assert torch.equal(gradient(solver), gradient(interpreted(solver)))


def test_a_solve_may_change_from_one_kind_of_step_to_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    W, x = systems(torch.float64)
    problem = Problem(lambda z: tanh_map(z, W, x))
    z = torch.zeros_like(x)
    solvers: list[Any] = [Anderson(compiled=True), Broyden(compiled=True)]
    for solver in solvers:
        reference: Any = interpreted(solver)
        mixed = solver.init(problem, z, problem.residual(z))
        plain = reference.init(problem, z, problem.residual(z))
        for count in range(12):
            module = sys.modules[type(solver).__module__]
            which = compiled_steps.runs_compiled if count % 4 < 2 else lambda *_: False
            monkeypatch.setattr(module, "runs_compiled", which)
            mixed, plain = solver.step(problem, mixed), reference.step(problem, plain)
            torch.testing.assert_close(mixed.z, plain.z, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", [(Anderson, "I"), (Broyden, "bad")], ids=["Anderson", "Broyden"])
def test_a_kind_without_compiled_steps_is_an_error(kind: tuple[Any, str]) -> None:
    solver, name = kind
    with pytest.raises(
        ValueError, match=rf"compiled=True is for .* leave it out for kind='{name}'"
    ):
        solver(kind=name, compiled=True)
    with pytest.raises(ValueError, match="compiled must be True or False, got 1"):
        solver(compiled=1)


def test_numba_and_sparse_matrices_are_imported_where_they_are_used_alone() -> None:
    code = (
        "import sys, torch, implicitly\n"
        "implicitly.fixed_point(torch.cos, torch.zeros(2), solver=implicitly.Broyden())\n"
        "x = torch.ones(100, requires_grad=True)\n"
        "implicitly.root(lambda z, x: z**3 + z - x, torch.ones(100), x).value.sum().backward()\n"
        "assert not {'numba', 'scipy.sparse'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
