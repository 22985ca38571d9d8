"""The transpose of a linear equation's operator, as a solver sees it, against dense matrices."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from implicitly import Exact, Stopping, fixed_point, root
from implicitly.solvers import Goal, Linearization, Problem, RunOutcome, WholeSolver
from torch import Tensor

N = 4


@dataclass(frozen=True)
class DenseBothWays(WholeSolver):
    """Solves by dense matrices and keeps them: column by column from `jvp`, row by row from `vjp`."""

    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        there = problem.linearization(z)
        columns, rows = by_columns(there, z), by_rows(there, z)
        self.seen.append((columns, rows))
        z = z - torch.linalg.solve(rows, residual)
        batch = z.shape[0]
        return RunOutcome(z, np.ones(batch), np.ones(batch))


def by_columns(there: Linearization, z: Tensor) -> Tensor:
    return torch.stack([there.jvp(unit.expand_as(z)) for unit in torch.eye(N).to(z)], dim=2)


def by_rows(there: Linearization, z: Tensor) -> Tensor:
    return torch.stack([there.vjp(unit.expand_as(z)) for unit in torch.eye(N).to(z)], dim=1)


def systems() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    W = 0.3 * torch.randn(3, N, N, generator=generator, dtype=torch.float64)
    return W, torch.randn(3, N, generator=generator, dtype=torch.float64)


def check(seen: tuple[Tensor, Tensor], expected: Tensor) -> None:
    # Sums of four products, in other orders: a few units of rounding.
    for found in seen:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("batched_args", [None, (True, True)], ids=["whole", "may be restricted"])
def test_an_equation_declared_linear_has_the_transpose_of_its_matrix(
    batched_args: tuple[bool, bool] | None,
) -> None:
    W, x = systems()
    solver = DenseBothWays()
    root(
        lambda z, W, x: torch.einsum("bij,bj->bi", W, z) - x, torch.zeros_like(x), W, x,
        solver=solver, linear=True, batch_dims=1, batched_args=batched_args,
    )  # fmt: skip
    check(solver.seen[0], -W)
    fixed_point(
        lambda z, W, x: torch.einsum("bij,bj->bi", W, z) + x, torch.zeros_like(x), W, x,
        solver=solver, linear=True, batch_dims=1, batched_args=batched_args,
    )  # fmt: skip
    check(solver.seen[1], W - torch.eye(N))


def test_adjoint_and_tangent_equations_are_each_other_s_transpose() -> None:
    W, x = systems()
    solver = DenseBothWays()

    def solve(x: Tensor) -> Tensor:
        return fixed_point(
            lambda z, x: torch.tanh(torch.einsum("bij,bj->bi", W, z) + x), torch.zeros_like(x), x,
            gradient=Exact(solver=solver), batch_dims=1, stopping=Stopping(rtol=1e-14, patience=5),
            on_failure="accept",
        ).value  # fmt: skip

    with torch.no_grad():
        z = solve(x)
    slope = 1 - torch.tanh(torch.einsum("bij,bj->bi", W, z) + x) ** 2
    jacobian = slope.unsqueeze(2) * W - torch.eye(N)
    torch.func.vjp(solve, x)[1](torch.ones_like(x))
    check(solver.seen[-1], jacobian.mT)
    torch.func.jvp(solve, (x,), (torch.ones_like(x),))
    check(solver.seen[-1], jacobian)


def test_under_vmap_the_transpose_has_the_mapped_systems() -> None:
    W, x = systems()
    solver = DenseBothWays()
    torch.func.vmap(
        lambda W, x: (
            root(lambda z: W @ z - x, torch.zeros_like(x), solver=solver, linear=True).value
        )
    )(W, x)
    check(solver.seen[0], -W)


def test_a_transpose_that_is_not_used_costs_nothing() -> None:
    calls = []

    def F(z: Tensor) -> Tensor:
        calls.append(z)
        return 2 * z - 1

    z0 = torch.zeros(N, dtype=torch.float64)
    solution = root(F, z0, linear=True)
    # One evaluation more makes the operator: its products are no calls of F.
    assert len(calls) <= solution.evaluations + 1


def test_without_a_transpose_the_error_says_what_to_give() -> None:
    problem = Problem(lambda z: 2 * z, operator=lambda v: 2 * v)
    with pytest.raises(TypeError, match=r"Problem\(transpose="):
        problem.linearization(torch.ones(1, 1)).vjp(torch.ones(1, 1))
    problem = Problem(lambda z: 2 * z, operator=lambda v: 2 * v, transpose=lambda u: 2 * u)
    assert problem.linearization(torch.ones(1, 1)).vjp(torch.ones(1, 1)).item() == 1.0
