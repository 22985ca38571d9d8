"""Broyden's methods: the updates of the textbook, the secant equation, and what they store."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import Broyden, Exact, Stopping, Unrolled, fixed_point, root
from implicitly.solvers import Problem
from oracle import iteration_matrix
from torch import Tensor

from .references import TanhSystems, affine_map, as_float64, tanh_map

Kind = Literal["good", "bad"]
both_kinds = pytest.mark.parametrize("kind", ["good", "bad"])


@both_kinds
@pytest.mark.parametrize("line_search", [False, True], ids=["full steps", "line search"])
@pytest.mark.parametrize("memory", [1, 3, 10, 30])
def test_the_secant_equation_holds_after_every_step(
    kind: Kind, line_search: bool, memory: int
) -> None:
    systems = TanhSystems.draw(2, 60, 4.0, seed=5)
    W, x = systems.tensors(torch.float64)
    evaluated: list[tuple[Tensor, Tensor]] = []

    def function(z: Tensor) -> Tensor:
        value = tanh_map(z, W, x)
        evaluated.append((z, value - z))
        return value

    problem = Problem(function)
    solver = Broyden(memory=memory, kind=kind, line_search=line_search)
    z = torch.zeros_like(x)
    state = solver.init(problem, z, problem.residual(z))
    for _ in range(25):
        z, residual = state.z.clone(), state.residual.clone()
        state = solver.step(problem, state)
        trial, trial_residual = evaluated[-1]
        s, y = trial - z, trial_residual - residual
        error = torch.linalg.vector_norm(state.inverse(y) - s, dim=1)
        # An update is left out where it would amplify by more than 1e4: rounding, 1e4 · eps for each
        # of up to 25 products; and the change y itself is known to eps · ‖z‖ only.
        slack = 1e-10 * torch.linalg.vector_norm(s, dim=1) + 1e-13
        assert bool((error <= slack).all())
    assert float(state.norm.max()) > 1e-12  # Else the last steps would have shown nothing.


def dense_broyden(kind: Kind, M: Any, c: Any, steps: int) -> Any:
    """The iterates of `r(z) = M z + c + 0.1 sin z − z` by the formulas for a dense inverse `H`."""

    def residual(z: Any) -> Any:
        return M @ z + c + 0.1 * np.sin(z) - z

    z, H = np.zeros(len(c)), -np.eye(len(c))
    r = residual(z)
    for _ in range(steps):
        s = -H @ r
        z = z + s
        y = residual(z) - r
        r = r + y
        if kind == "good":
            H = H + np.outer(s - H @ y, s @ H) / (s @ H @ y)
        else:
            H = H + np.outer(s - H @ y, y) / (y @ y)
    return z


@both_kinds
@given(n=st.integers(2, 8), steps=st.integers(1, 9), seed=st.integers(0, 1000))
def test_iterates_are_those_of_the_dense_formulas(
    kind: Kind, n: int, steps: int, seed: int
) -> None:
    M = iteration_matrix("symmetric", n, 0.6, seed)
    c = np.random.default_rng(seed).standard_normal(n)
    matrix, constant = torch.from_numpy(M), torch.from_numpy(c)
    solution = fixed_point(
        lambda z: matrix @ z + constant + 0.1 * torch.sin(z),
        torch.zeros_like(constant),
        solver=Broyden(kind=kind, line_search=False),
        stopping=Stopping(max_steps=steps, rtol=1e-9),
        on_failure="accept",
    )
    dense = dense_broyden(kind, M, c, int(solution.steps))
    if bool(solution.converged) or int(solution.steps) == steps:
        # Rounding, amplified by updates of at most 1e4 each; most amplify little.
        np.testing.assert_allclose(as_float64(solution.value), dense, rtol=0, atol=1e-9)


def test_a_full_memory_keeps_what_the_singular_value_decomposition_would() -> None:
    # Dense formulas; once four updates are stored, their sum is cut to rank three. The step that is
    # under way was found before that.
    n, memory = 12, 4
    M = iteration_matrix("symmetric", n, 0.9, seed=0)
    c = np.random.default_rng(0).standard_normal(n)

    def residual(z: Any) -> Any:
        return M @ z + c + 0.1 * np.sin(z) - z

    z, update, used = np.zeros(n), np.zeros((n, n)), 0
    iterates = [z]
    for _ in range(12):
        s = -(update - np.eye(n)) @ residual(z)
        y = residual(z + s) - residual(z)
        if used == memory:
            u, sizes, v = np.linalg.svd(update)
            update, used = (u[:, :3] * sizes[:3]) @ v[:3], 3
        H = update - np.eye(n)
        update = update + np.outer(s - H @ y, s @ H) / (s @ H @ y)
        z, used = z + s, used + 1
        iterates.append(z)
    found = [
        fixed_point(
            lambda z: torch.from_numpy(M) @ z + torch.from_numpy(c) + 0.1 * torch.sin(z),
            torch.zeros(n, dtype=torch.float64),
            solver=Broyden(memory=memory, line_search=False),
            stopping=Stopping(max_steps=steps, rtol=1e-13),
            on_failure="accept",
        )
        for steps in (5, 8, 12)
    ]
    assert float(found[-1].residual_norm) > 1e-9  # Else the last steps would have shown nothing.
    for solution, steps in zip(found, (5, 8, 12), strict=True):
        # Rounding, amplified by updates of at most 1e4 each; most amplify little.
        np.testing.assert_allclose(as_float64(solution.value), iterates[steps], rtol=0, atol=1e-9)


@pytest.mark.parametrize("memory", [10, 20])
@pytest.mark.parametrize("radius", [0.9, 0.99, 1.2])
def test_fewer_updates_than_the_equation_has_unknowns_are_enough(
    radius: float, memory: int
) -> None:
    # Forgetting the oldest update instead, with a memory of 20 one of these 18 systems converges.
    n = 40
    generator = np.random.default_rng(0)
    M = generator.standard_normal((6, n, n))
    M *= radius / np.abs(np.linalg.eigvals(M)).max(axis=1)[:, None, None]
    c = generator.standard_normal((6, n))
    solution = fixed_point(
        affine_map, torch.zeros(6, n, dtype=torch.float64), torch.from_numpy(M),
        torch.from_numpy(c), solver=Broyden(memory=memory), batch_dims=1, on_failure="accept",
        stopping=Stopping(max_steps=1000, patience=1000),
    )  # fmt: skip
    assert solution.converged.all()
    # The error is at most the residual times the norm of the inverse.
    answer = np.linalg.solve(np.eye(n) - M, c[:, :, None])[:, :, 0]
    inverse = np.linalg.norm(np.linalg.inv(np.eye(n) - M), 2, axis=(1, 2))
    error = np.linalg.norm(as_float64(solution.value) - answer, axis=1)
    assert (error <= 1.01 * inverse * np.sqrt(n) * as_float64(solution.residual_norm) + 1e-12).all()


@both_kinds
@given(n=st.integers(1, 6), seed=st.integers(0, 1000))
def test_linear_equations_end_after_twice_as_many_steps_as_unknowns(
    kind: Kind, n: int, seed: int
) -> None:
    # Gay 1979, theorem 2.2 and section 4: at most 2n steps with full memory and full steps.
    M = torch.from_numpy(iteration_matrix("symmetric", n, 0.9, seed))
    c = torch.from_numpy(np.random.default_rng(seed).standard_normal(n))
    solver = Broyden(kind=kind, line_search=False)
    solution = fixed_point(lambda z: M @ z + c, torch.zeros_like(c), solver=solver)
    # Two more, as rounding spoils the exact end.
    assert int(solution.steps) <= 2 * n + 2


def stored_bytes(state: Any) -> int:
    values = [getattr(state, field.name) for field in dataclasses.fields(state)]
    tensors = {value.data_ptr(): value for value in values if isinstance(value, Tensor)}
    return sum(tensor.nbytes for tensor in tensors.values())


@both_kinds
def test_storage_grows_with_the_steps_done_and_not_with_the_limit(kind: Kind) -> None:
    W, x = TanhSystems.draw(2, 50, 0.95, seed=0).tensors(torch.float64)
    problem = Problem(lambda z: tanh_map(z, W, x))
    z = torch.zeros_like(x)

    def after(steps: int, memory: int) -> int:
        solver = Broyden(memory=memory, kind=kind)
        state = solver.init(problem, z, problem.residual(z))
        for _ in range(steps):
            state = solver.step(problem, state)
        return stored_bytes(state)

    vector = z.nbytes
    assert after(5, memory=10_000) == after(5, memory=100)
    for steps in (1, 5, 20, 60):
        # Two vectors for each update, at most twice the room that is used, and some vectors beside.
        assert after(steps, memory=10_000) <= 2 * 2 * max(steps, 8) * vector + 8 * vector
    assert after(60, memory=10) <= 2 * 10 * vector + 8 * vector
    assert after(60, memory=10_000) >= 2 * 60 * vector


@pytest.mark.parametrize("growth", [0.0, 1.0])
def test_the_line_search_bounds_the_growth_of_the_residual(growth: float) -> None:
    # A full first step from 4 lands far off, where arctan is flat.
    trace = root(
        lambda z: torch.atan(z - 1), torch.tensor([4.0, -4.0], dtype=torch.float64), trace=True,
        solver=Broyden(growth=growth), batch_dims=1, on_failure="accept",
        stopping=Stopping(max_steps=30),
    ).trace  # fmt: skip
    assert trace is not None
    ended = np.isnan(trace)
    before, after = trace[:-1], trace[1:]
    steps = np.arange(1, len(trace))[:, None]
    assert (ended[1:] | (after <= (1 + growth / steps**2) * before * (1 + 1e-12))).all()


def test_without_a_line_search_every_step_is_taken_in_full() -> None:
    points: list[float] = []

    def residual(z: Tensor) -> Tensor:
        points.append(float(z.detach()))
        return torch.exp(z) - 20

    root(
        residual, torch.zeros((), dtype=torch.float64), on_failure="accept",
        solver=Broyden(line_search=False), stopping=Stopping(rtol=1e-10, max_steps=1),
    )  # fmt: skip
    # The first step has the length of Newton's: 19 / exp(0), an overshoot that is kept.
    assert points[-1] == pytest.approx(19.0)


@both_kinds
def test_a_memory_of_one_still_solves_contractive_systems(kind: Kind) -> None:
    systems = TanhSystems.draw(3, 6, 0.8, seed=1)
    W, x = systems.tensors(torch.float64)
    solution = fixed_point(
        tanh_map, torch.zeros_like(x), W, x, solver=Broyden(memory=1, kind=kind), batch_dims=1
    )
    # ‖z‖ ≤ √6, over 1 − 0.8.
    np.testing.assert_allclose(
        as_float64(solution.value), systems.answer(), rtol=0, atol=1e-10 * 2.5 / 0.2
    )


@both_kinds
@pytest.mark.parametrize("memory", [2, 50])
def test_unrolled_gradients_of_systems_that_end_early_are_finite(kind: Kind, memory: int) -> None:
    # A system that has ended is evaluated where it stays: its last moves change nothing, and teach nothing.
    W, x = TanhSystems.draw(3, 6, 0.5, seed=0).tensors(torch.float64)
    x = (x * torch.tensor([[1e-3], [1.0], [2.0]], dtype=torch.float64)).requires_grad_()
    gradients: list[Tensor] = []
    for gradient in (Unrolled(), Exact()):
        solution = fixed_point(
            tanh_map, torch.zeros_like(x), W, x, gradient=gradient, batch_dims=1,
            solver=Broyden(kind=kind, memory=memory),
        )  # fmt: skip
        assert len(set(solution.steps.tolist())) > 1
        gradients += torch.autograd.grad(solution.value.square().sum(), x)
    # The iterations converge superlinearly to 1e-10, their derivatives more slowly.
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-4)
