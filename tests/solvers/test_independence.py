"""The systems of a batch are independent: none changes another's answer, status or number of steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    BiCGStab,
    FixedPointIteration,
    NeumannSeries,
    Solution,
    Solver,
    Status,
    Stopping,
)
from implicitly.solvers import Problem, solve
from pairs import few_examples, in_pairs
from torch import Tensor

from .references import ALL, FORMS, NONLINEAR, Form, TanhSystems, solve_form

every_form = pytest.mark.parametrize("form", FORMS)

NASTY = {
    # The value of such a system's map, from z, x and the map as it should be.
    "NaN": lambda z, x, y: torch.full_like(y, torch.nan),
    "NaN later": lambda z, x, y: torch.where(z.abs().amax(-1, True) > 0.1, torch.nan, y),
    "divergent": lambda z, x, y: 3 * z + x,
    "slow": lambda z, x, y: 0.9999 * z + torch.sign(x),
}


def map_with(kind: str, which: int, linear: bool) -> object:
    """Contractive maps, tanh(W z + x) or W z + x, but for one system of another kind."""

    def f(z: Tensor, W: Tensor, x: Tensor, chosen: Tensor) -> Tensor:
        y = torch.einsum("bij,bj->bi", W, z) + x
        y = y if linear else torch.tanh(y)
        return torch.where(chosen.unsqueeze(1), NASTY[kind](z, x, y), y)

    return f


def solve_with(
    solver: Solver, form: Form, systems: TanhSystems, kind: str, chosen: Tensor, dropping: bool
) -> Solution:
    W, x = systems.tensors(torch.float64)
    return solve_form(
        form, map_with(kind, 1, solver.linear_only), torch.zeros_like(x), W, x, chosen,
        solver=solver, linear=solver.linear_only, batch_dims=1, on_failure="accept",
        batched_args=(True, True, True) if dropping else None,
        stopping=Stopping(max_steps=400),
    )  # fmt: skip


@in_pairs(solver=ALL, kind=list(NASTY), form=FORMS, dropping={"whole": False, "dropping": True})
def test_a_nasty_system_changes_no_bit_of_its_neighbours(
    solver: Solver, form: Form, dropping: bool, kind: str
) -> None:
    if solver.linear_only and kind == "NaN later":
        pytest.skip("not a linear equation")
    for seed in range(2):
        systems = TanhSystems.draw(4, 5, 0.8, seed)
        none = torch.tensor([False] * 4)
        one = torch.tensor([False, True, False, False])
        healthy = solve_with(solver, form, systems, kind, none, dropping)
        beside = solve_with(solver, form, systems, kind, one, dropping)
        # Without dropping, the shapes and so the arithmetic are the same: equal to the last bit.
        # Dropping makes batches of other sizes, in which products may be summed in another order:
        # the final residual moves by rounding, n²·eps, and the answer by 1 / (1 − 0.8) of it.
        others = [0, 2, 3]
        slack = 25 * 5 * torch.finfo(torch.float64).eps * 10 if dropping else 0.0
        assert bool(healthy.converged.all())
        assert torch.equal(beside.status[others], healthy.status[others])
        assert torch.equal(beside.steps[others], healthy.steps[others])
        difference = (beside.value[others] - healthy.value[others]).abs().max().item()
        assert difference <= slack
        if kind == "NaN":
            assert beside.status[1] == Status.NON_FINITE


@pytest.mark.parametrize("solver", NONLINEAR.values(), ids=NONLINEAR.keys())
@every_form
@few_examples()
@given(batch=st.integers(2, 5), n=st.integers(1, 5), seed=st.integers(0, 1000))
def test_every_system_of_a_batch_is_solved_as_if_it_were_alone(
    solver: Solver, form: Form, batch: int, n: int, seed: int
) -> None:
    systems = TanhSystems.draw(batch, n, 0.7, seed)
    W, x = systems.tensors(torch.float64)

    def f(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        # A sum over an axis of its own: the same arithmetic for any batch.
        return torch.tanh((W * z.unsqueeze(1)).sum(-1) + x)

    together = solve_form(
        form, f, torch.zeros(batch, n).double(), W, x, solver=solver, batch_dims=1
    )
    for i in range(batch):
        alone = solve_form(
            form, f, torch.zeros(1, n).double(), W[i : i + 1], x[i : i + 1], solver=solver,
            batch_dims=1,
        )  # fmt: skip
        assert torch.equal(alone.status, together.status[i : i + 1])
        assert torch.equal(alone.steps, together.steps[i : i + 1])
        difference = (alone.value[0] - together.value[i]).abs().max().item()
        # A plain iteration is the same arithmetic. The products inside other solvers may be summed
        # in another order for another batch size; near the root their effect is rounding times the
        # sensitivity of an extrapolation, (16 eps)^-1/2, times the last residuals: below 1e-16.
        assert difference <= (0.0 if isinstance(solver, FixedPointIteration) else 1e-14)


@every_form
@given(order=st.permutations(range(5)), seed=st.integers(0, 100))
def test_the_order_of_the_systems_does_not_matter(form: Form, order: list[int], seed: int) -> None:
    systems = TanhSystems.draw(5, 3, 0.8, seed)
    W, x = systems.tensors(torch.float64)

    def f(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        return torch.tanh((W * z.unsqueeze(1)).sum(-1) + x)

    solver = NONLINEAR["Anderson-II"]
    straight = solve_form(form, f, torch.zeros_like(x), W, x, solver=solver, batch_dims=1)
    mixed = solve_form(
        form, f, torch.zeros_like(x), W[order], x[order], solver=solver, batch_dims=1
    )
    assert torch.equal(mixed.steps, straight.steps[order])
    assert torch.equal(mixed.value, straight.value[order])


def test_batch_axes_are_only_a_shape() -> None:
    systems = TanhSystems.draw(6, 3, 0.8, 0)
    W, x = systems.tensors(torch.float64)
    for solver in NONLINEAR.values():
        flat = solve_form(
            "fixed_point",
            lambda z: torch.tanh((W * z.unsqueeze(1)).sum(-1) + x),
            torch.zeros(6, 3).double(), solver=solver, batch_dims=1,
        )  # fmt: skip
        grid = solve_form(
            "fixed_point",
            lambda z: torch.tanh((W * z.reshape(6, 1, 3)).sum(-1) + x).reshape(2, 3, 3),
            torch.zeros(2, 3, 3).double(), solver=solver, batch_dims=2,
        )  # fmt: skip
        assert torch.equal(grid.value.reshape(6, 3), flat.value)
        assert torch.equal(grid.steps.reshape(6), flat.steps)


@pytest.mark.parametrize("solver", [BiCGStab(), NeumannSeries()], ids=lambda s: type(s).__name__)
def test_a_system_that_falls_short_when_confirmed_is_not_charged_for_its_neighbours(
    solver: Solver,
) -> None:
    # In most of these a first confirmation falls short.
    for seed in range(8):
        generator = np.random.default_rng(seed)
        M = torch.from_numpy(generator.standard_normal((20, 20)) / math.sqrt(20)).float()
        c = torch.from_numpy(generator.standard_normal((1, 20))).float().expand(2, 20)
        steps = []
        for radius in (0.1, 0.99):
            # The first system is the same each time; the second is fast or slow.
            radii = torch.tensor([0.9, radius])

            def operator(v: Tensor, radii: Tensor = radii, M: Tensor = M) -> Tensor:
                return torch.einsum("bij,bj->bi", radii[:, None, None] * M, v)

            problem = Problem(
                lambda z, operator=operator, c=c: operator(z) + c,  # type: ignore[misc]
                operator=operator,
            )
            result = solve(problem, solver, torch.zeros(2, 20), Stopping(rtol=1e-6))
            steps.append(int(result.steps[0]))
        assert steps[0] == steps[1]


def test_a_system_with_a_residual_of_zero_or_a_huge_one_leaves_the_norms_of_others_alone() -> None:
    x = torch.linspace(0.1, 1.0, 7)

    def traced(others: Tensor) -> np.ndarray:
        constants = torch.cat((x[None], others))
        problem = Problem(lambda z: 0.3 * torch.tanh(z) + constants)
        stopping = Stopping(rtol=0.0, atol=0.0, max_steps=6)
        found = solve(
            problem, FixedPointIteration(), torch.zeros_like(constants), stopping, trace=True
        )
        assert found.trace is not None
        return found.trace[:6, 0]

    alone = traced(torch.empty(0, 7))
    for other in (torch.zeros(1, 7), torch.full((1, 7), 1e25)):
        np.testing.assert_array_equal(traced(other), alone)
