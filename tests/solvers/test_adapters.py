"""The contract of solvers, kept by adapters to other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from implicitly import (
    Exact,
    ImplicitLayer,
    ScipyRoot,
    Solution,
    SolveError,
    Solver,
    Status,
    SteadyState,
    Stopping,
    Unrolled,
    fixed_point,
    root,
)
from torch import Tensor

from .references import ADAPTERS, TanhSystems, as_float64, norms, tanh_map

every_adapter = pytest.mark.parametrize("solver", ADAPTERS.values(), ids=ADAPTERS.keys())
# Integrators of one kind differ in their coefficients only.
ALIKE = (
    "dopri8",
    "bosh3",
    "fehlberg2",
    "adaptive_heun",
    "midpoint",
    "heun2",
    "heun3",
    "fixed_adams",
)
KINDS = {name: s for name, s in ADAPTERS.items() if name.split("-", 1)[1] not in ALIKE}
every_kind = pytest.mark.parametrize("solver", KINDS.values(), ids=KINDS.keys())
# The same contract with one of each family where what is tested is no matter of the method.
some_adapters = pytest.mark.parametrize(
    "solver",
    [ADAPTERS[name] for name in ("ScipyRoot-hybr", "ScipyRoot-broyden1", "SteadyState-dopri5")],
    ids=["hybr", "broyden1", "dopri5"],
)
SYSTEMS = TanhSystems.draw(3, 4, 0.7, seed=1)


def solve(solver: Solver, dtype: torch.dtype = torch.float64, **options: object) -> Solution:
    """The fixed points of `SYSTEMS`, whose rows of `W` and `x` belong to one system each."""
    W, x = SYSTEMS.tensors(dtype)
    return fixed_point(
        tanh_map, torch.zeros_like(x), W, x, solver=solver, batch_dims=1, **options  # type: ignore[arg-type]
    )  # fmt: skip


@every_adapter
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_contractions_end_at_the_root_that_dense_newton_finds(
    solver: Solver, dtype: torch.dtype
) -> None:
    solution = solve(solver, dtype)
    assert solution.value.dtype == dtype
    assert bool(solution.converged.all())
    z = as_float64(solution.value)
    systems = TanhSystems.draw(3, 4, 0.7, seed=1, dtype=dtype)
    rtol = {torch.float64: 1e-10, torch.float32: 1e-6}[dtype]
    allowed = rtol * norms(z) + systems.rounding(z, dtype)
    # The systems as rounded to float32 are others by rounding, which their sensitivity amplifies.
    assert (norms(SYSTEMS.residual(z)) <= 2 * allowed).all()
    assert (norms(z - systems.answer()) <= 2 * allowed / (1 - 0.7)).all()


@some_adapters
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_reaches_its_floor(solver: Solver, dtype: torch.dtype) -> None:
    systems = TanhSystems.draw(3, 4, 0.5, seed=2, dtype=dtype)
    W, x = systems.tensors(dtype)
    solution = fixed_point(
        tanh_map, torch.zeros_like(x), W, x, solver=solver, batch_dims=1, on_failure="accept"
    )
    z = as_float64(solution.value)
    assert solution.value.dtype == dtype
    floor = 4 * torch.finfo(dtype).eps * norms(z) + systems.rounding(z, dtype)
    assert (norms(z - systems.answer()) <= floor / (1 - systems.norm)).all()


@every_kind
def test_the_residual_is_that_of_the_value_and_evaluations_are_those_made(solver: Solver) -> None:
    calls = 0
    W, x = SYSTEMS.tensors(torch.float64)

    def f(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return tanh_map(z, W, x)

    solution = fixed_point(f, torch.zeros_like(x), solver=solver, batch_dims=1)
    # Beside what is counted, the shape of the result may be looked at once.
    assert calls - 1 <= solution.evaluations <= calls
    expected = norms(SYSTEMS.residual(as_float64(solution.value))) / 2
    np.testing.assert_allclose(as_float64(solution.residual_norm), expected, rtol=0, atol=1e-15)
    assert (solution.steps > 0).all()


@every_kind
@pytest.mark.parametrize("where", [(), (True, True)], ids=["held", "restricted"])
def test_a_system_that_turns_nan_gets_that_status_and_the_others_finish_as_alone(
    solver: Solver, where: tuple[bool, ...]
) -> None:
    W, x = SYSTEMS.tensors(torch.float64)

    def f(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        y = tanh_map(z, W, x)
        # Where z has left its start, the second system, known by its x, has no value.
        return torch.where((x[:, :1] == SYSTEMS.x[1, 0]) & (z[:, :1] != 0), torch.nan, y)

    healthy = solve(solver, batched_args=where or None)
    solution = fixed_point(
        f, torch.zeros_like(x), W, x, solver=solver, batch_dims=1, on_failure="accept",
        batched_args=where or None,
    )  # fmt: skip
    assert not bool(solution.converged[1])
    assert solution.status[1] in (Status.NON_FINITE, Status.STALLED, Status.MAX_STEPS)
    assert torch.equal(solution.value[1], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(solution.value[[0, 2]], healthy.value[[0, 2]])
    assert torch.equal(solution.status[[0, 2]], healthy.status[[0, 2]])
    assert torch.equal(solution.steps[[0, 2]], healthy.steps[[0, 2]])


@every_kind
def test_while_one_system_is_solved_the_others_are_held_at_their_start(solver: Solver) -> None:
    W, x = SYSTEMS.tensors(torch.float64)
    z0 = 0.1 * x
    moved = []

    def f(z: Tensor) -> Tensor:
        moved.append(int((z != z0).any(dim=1).sum()))
        return tanh_map(z, W, x)

    fixed_point(f, z0, solver=solver, batch_dims=1)
    # The last evaluation is that of all answers.
    assert max(moved[:-1]) == 1


@every_kind
def test_an_error_of_the_program_passes_through_the_library(solver: Solver) -> None:
    calls = 0

    def f(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:  # Only then: the driver's own evaluation must not be what raises.
            raise TypeError("not of a point")
        return torch.cos(z)

    with pytest.raises(TypeError, match="^not of a point$"):
        fixed_point(f, torch.zeros(2, dtype=torch.float64), solver=solver)


@every_kind
def test_the_limit_on_evaluations_is_kept_and_the_best_point_comes_back(solver: Solver) -> None:
    for limit in (2, 3, 6):
        solution = fixed_point(
            lambda z: torch.tanh(SLOW @ z + 1), torch.zeros(4, dtype=torch.float64), solver=solver,
            stopping=Stopping(max_evaluations=limit), on_failure="accept",
        )  # fmt: skip
        assert solution.status.item() == Status.MAX_STEPS
        assert solution.evaluations <= limit
        start = torch.tanh(torch.ones(4, dtype=torch.float64)).norm() / 2
        assert solution.residual_norm <= start


@some_adapters
def test_every_system_has_the_whole_limit_on_evaluations(solver: Solver) -> None:
    W, x = SYSTEMS.tensors(torch.float64)
    stopping = Stopping(max_evaluations=8)
    together = solve(solver, stopping=stopping, on_failure="accept")
    for i in range(3):
        one = slice(i, i + 1)
        alone = fixed_point(
            tanh_map, torch.zeros_like(x[one]), W[one], x[one], solver=solver, batch_dims=1,
            stopping=stopping, on_failure="accept",
        )  # fmt: skip
        assert torch.equal(alone.status, together.status[one])
        assert torch.equal(alone.steps, together.steps[one])
        torch.testing.assert_close(alone.value, together.value[one], rtol=0, atol=1e-14)


SLOW = torch.from_numpy(TanhSystems.draw(1, 4, 0.9, seed=5).W[0])


@every_kind
def test_the_limit_on_steps_is_kept(solver: Solver) -> None:
    solution = fixed_point(
        lambda z: torch.tanh(SLOW @ z + 1), torch.zeros(4, dtype=torch.float64), solver=solver,
        stopping=Stopping(max_steps=2), on_failure="accept",
    )  # fmt: skip
    assert solution.status.item() == Status.MAX_STEPS
    assert 1 <= solution.steps.item() <= 3


@every_kind
def test_systems_are_evaluated_by_themselves_where_the_arguments_allow_it(solver: Solver) -> None:
    sizes = []

    def f(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        sizes.append(len(z))
        return tanh_map(z, W, x)

    W, x = SYSTEMS.tensors(torch.float64)
    fixed_point(
        f, torch.zeros_like(x), W, x, solver=solver, batch_dims=1, batched_args=(True, True)
    )
    # All together only at the start and at the end.
    assert sizes.count(3) <= 4
    assert sizes.count(1) == len(sizes) - sizes.count(3)


@some_adapters
def test_gradients_and_their_derivatives_are_those_of_the_equation(solver: Solver) -> None:
    systems = TanhSystems.draw(1, 2, 0.7, seed=1)
    W, x = (tensor.requires_grad_() for tensor in systems.tensors(torch.float64))

    def value(W: Tensor, x: Tensor) -> Tensor:
        return fixed_point(
            tanh_map, torch.zeros_like(x), W, x, solver=solver, batch_dims=1,
            stopping=Stopping(rtol=1e-12),
        ).value  # fmt: skip

    assert torch.autograd.gradcheck(value, (W, x))
    if not isinstance(solver, SteadyState):  # The rule knows no solver; this one takes its time.
        assert torch.autograd.gradgradcheck(value, (W, x))


@every_kind
def test_it_may_solve_the_adjoint_equation(solver: Solver) -> None:
    W, x = SYSTEMS.tensors(torch.float64)

    def gradient(adjoint: Solver | None) -> Tensor:
        at = x.clone().requires_grad_()
        z = fixed_point(
            tanh_map, torch.zeros_like(x), W, at, batch_dims=1, gradient=Exact(solver=adjoint)
        )
        (found,) = torch.autograd.grad(z.value.sum(), at)
        return found

    # Both solve to 1e-10 of a right-hand side of ones, with ‖(I − Jᵀ)⁻¹‖ ≤ 1 / 0.3.
    torch.testing.assert_close(gradient(solver), gradient(None), rtol=0, atol=2e-9)


@some_adapters
def test_transforms_map_over_it(solver: Solver) -> None:
    W, x = SYSTEMS.tensors(torch.float64)

    def one(W: Tensor, x: Tensor) -> Tensor:
        return fixed_point(
            lambda z, W, x: torch.tanh(W @ z + x), torch.zeros_like(x), W, x, solver=solver
        ).value

    mapped = torch.func.vmap(one)(W, x)
    np.testing.assert_allclose(as_float64(mapped), SYSTEMS.answer(), rtol=0, atol=1e-9)
    jacobian = torch.func.jacrev(one, argnums=1)(W[0], x[0])
    slope = np.diag(1 - SYSTEMS.answer()[0] ** 2)
    expected = np.linalg.solve(np.eye(4) - slope @ SYSTEMS.W[0], slope)
    np.testing.assert_allclose(as_float64(jacobian), expected, rtol=0, atol=1e-8)


@some_adapters
def test_a_system_of_a_batch_is_solved_as_if_it_were_alone(solver: Solver) -> None:
    W, x = SYSTEMS.tensors(torch.float64)

    def f(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        # A sum over an axis of its own: the same arithmetic for any batch.
        return torch.tanh((W * z.unsqueeze(1)).sum(-1) + x)

    together = fixed_point(f, torch.zeros_like(x), W, x, solver=solver, batch_dims=1)
    for i in range(3):
        one = slice(i, i + 1)
        alone = fixed_point(
            f, torch.zeros_like(x[one]), W[one], x[one], solver=solver, batch_dims=1
        )
        assert torch.equal(alone.steps, together.steps[one])
        # The Jacobian is made of batched products, which may be summed in another order.
        torch.testing.assert_close(alone.value, together.value[one], rtol=0, atol=1e-15)


@some_adapters
def test_trees_batch_axes_and_devices_come_back_as_they_went(solver: Solver) -> None:
    W, x = SYSTEMS.tensors(torch.float64)
    z0: Any = {"a": torch.zeros(1, 3, 2), "b": (torch.zeros(1, 3, 2, dtype=torch.float64),)}

    def f(z: Any) -> Any:
        y = tanh_map(torch.cat([z["a"], z["b"][0]], 2)[0], W, x)[None]
        return {"a": y[..., :2].float(), "b": (y[..., 2:],)}

    solution = fixed_point(f, z0, solver=solver, batch_dims=2)
    assert solution.status.shape == (1, 3)
    assert solution.value["a"].dtype == torch.float32
    assert solution.value["b"][0].dtype == torch.float64
    joined = torch.cat([solution.value["a"], solution.value["b"][0]], 2)[0]
    np.testing.assert_allclose(as_float64(joined), SYSTEMS.answer(), rtol=0, atol=1e-5)


@some_adapters
def test_a_callback_is_told_and_may_end_the_solve(solver: Solver) -> None:
    seen: list[np.ndarray] = []

    def callback(step: int, norms: np.ndarray) -> bool:
        seen.append(norms)
        return len(seen) >= 2

    solution = solve(solver, callback=callback, on_failure="accept")
    assert solution.status.tolist() == [Status.MAX_STEPS] * 3
    assert [len(entries) for entries in seen] == [3, 3]


@some_adapters
def test_what_a_callback_raises_passes(solver: Solver) -> None:
    def callback(step: int, norms: np.ndarray) -> bool:
        if step == 0:
            return False  # The driver's look at the start.
        raise ValueError("from the callback")

    with pytest.raises(ValueError, match="from the callback"):
        solve(solver, callback=callback)


@some_adapters
def test_unrolling_explains_why_it_cannot(solver: Solver) -> None:
    W, x = SYSTEMS.tensors(torch.float64)
    with pytest.raises(TypeError, match=r"runs whole.*other than Unrolled"):
        fixed_point(
            tanh_map, torch.zeros_like(x), W, x.requires_grad_(), solver=solver, batch_dims=1,
            gradient=Unrolled(),
        )  # fmt: skip


@some_adapters
def test_a_layer_trains_with_it(solver: Solver) -> None:
    class Cell(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return torch.tanh(0.3 * self.linear(z) + x)

    torch.manual_seed(0)
    layer = ImplicitLayer(Cell(), solver=solver)
    layer(torch.randn(2, 4)).square().sum().backward()
    assert all(bool((p.grad != 0).any()) for p in layer.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in layer.parameters())


@every_kind
def test_an_equation_without_a_root_fails_with_a_status_and_a_residual(solver: Solver) -> None:
    with pytest.raises(SolveError) as e:
        root(
            lambda z: z**2 + 1, torch.full((1, 1), 0.7, dtype=torch.float64), solver=solver,
            batch_dims=1, stopping=Stopping(max_evaluations=200),
        )  # fmt: skip
    solution = e.value.solution
    assert solution.status.item() in (
        Status.STALLED, Status.MAX_STEPS, Status.DIVERGED, Status.NON_FINITE,
    )  # fmt: skip
    assert 1 <= solution.residual_norm.item() <= 1.49


def test_the_reason_that_scipy_gives_is_in_the_error() -> None:
    with pytest.raises(SolveError, match="reason: The iteration is not making good progress"):
        root(
            lambda z: z**2 + 1, torch.full((1,), 0.7, dtype=torch.float64), solver=ScipyRoot("hybr")
        )


def test_a_flow_that_runs_away_has_diverged() -> None:
    with pytest.raises(SolveError, match="DIVERGED"):
        fixed_point(
            lambda z: 3 * z + 1, torch.ones(1, dtype=torch.float64), solver=SteadyState(),
        )  # fmt: skip


def test_a_flow_that_goes_round_for_ever_ends_with_a_status() -> None:
    solution = fixed_point(
        lambda z: z + torch.stack([z[1], -z[0]]), torch.ones(2, dtype=torch.float64),
        solver=SteadyState(), on_failure="accept",
    )  # fmt: skip
    assert solution.status.item() in (Status.STALLED, Status.MAX_STEPS)
    # The flow keeps its distance; the integrator's errors, a hundredth a stretch, take some of it.
    assert solution.residual_norm.item() > 0.1
