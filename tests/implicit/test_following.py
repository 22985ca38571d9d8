"""Derivatives use what the solver of the equation knew of its Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from implicitly import (
    GMRES,
    CausalNewton,
    Exact,
    NewtonKrylov,
    Polyalgorithm,
    SparseLU,
    Stopping,
    fixed_point,
    root,
)
from torch import Tensor

N = 700
TIGHT = Stopping(rtol=1e-12)


def recurrent(z: Tensor, x: Tensor) -> Tensor:
    """`z_t = tanh(W z_{t−1} + x_t)`."""
    weight = torch.tensor([[0.7, -0.4], [0.3, 0.6]], dtype=z.dtype)
    before = torch.cat((torch.zeros_like(z[:1]), z[:-1]))
    return torch.tanh(before @ weight.T + x)


def looped(x: Tensor) -> Tensor:
    """The same, one time step after the other."""
    weight, states = torch.tensor([[0.7, -0.4], [0.3, 0.6]], dtype=x.dtype), []
    state = torch.zeros(2, dtype=x.dtype)
    for row in x:
        state = torch.tanh(weight @ state + row)
        states.append(state)
    return torch.stack(states)


def test_the_adjoint_of_a_causal_newton_solve_runs_against_time_in_one_step() -> None:
    x = torch.linspace(-1, 1, 2 * N, dtype=torch.float64).sin().reshape(N, 2).requires_grad_()
    z0 = torch.zeros(N, 2, dtype=torch.float64)
    solution = fixed_point(recurrent, z0, x, solver=CausalNewton(block=2), stopping=TIGHT)
    (gradient,) = torch.autograd.grad(solution.value.pow(2).sum(), x, create_graph=True)
    assert solution.adjoints[0].steps == 1
    (second,) = torch.autograd.grad(gradient.pow(2).sum(), x)
    (expected,) = torch.autograd.grad(looped(x).pow(2).sum(), x, create_graph=True)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)
    (expected,) = torch.autograd.grad(expected.pow(2).sum(), x)
    torch.testing.assert_close(second, expected, rtol=1e-8, atol=1e-8)


def test_diagonals_of_blocks_are_left_to_the_default_adjoint() -> None:
    assert CausalNewton(block=2, jacobian="diagonal").for_derivative(None) is None
    assert CausalNewton(block=2, damping=0.3).for_derivative(None) == CausalNewton(block=2)


def transport(z: Tensor, x: Tensor) -> Tensor:
    """`−z″ + 40 z′ + z³ = x` on a line, with a slope from two neighbours on the left: not symmetric."""
    padded, n = torch.nn.functional.pad(z, (2, 1)), z.shape[-1]
    left, last = padded[..., 1:-2], padded[..., :-3]
    diffusion = (2 * z - padded[..., 3:] - left) * n**2
    return diffusion + 20 * n * (3 * z - 4 * left + last) + z**3 - x


def dense_jacobian(z: Tensor) -> Tensor:
    found: Tensor = torch.func.jacrev(lambda z: transport(z, torch.zeros_like(z)))(z)
    return found


X = torch.ones(N, dtype=torch.float64)
WEIGHT = torch.linspace(-1, 2, N, dtype=torch.float64)
INVERSE = torch.linalg.inv(dense_jacobian(torch.zeros(N, dtype=torch.float64)))


def by_numpy(v: Tensor) -> Tensor:
    return torch.from_numpy(INVERSE.numpy() @ v.detach().numpy())


def gradient_of(**options: object) -> tuple[Tensor, object]:
    x, z0 = X.clone().requires_grad_(), torch.zeros(N, dtype=torch.float64)
    solution = root(transport, z0, x, stopping=TIGHT, **options)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(solution.value @ WEIGHT, x)
    expected = torch.linalg.solve(dense_jacobian(solution.value.detach()).mT, WEIGHT)
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-9)
    return gradient, solution.adjoints[0]


@pytest.mark.parametrize(
    "options",
    [
        {"preconditioner": lambda v: INVERSE @ v},
        {"solver": NewtonKrylov(linear_solver=GMRES(preconditioner=lambda v: v @ INVERSE.mT))},
    ],
    ids=["of the call", "of its solver"],
)
def test_a_preconditioner_serves_the_adjoint_transposed(options: dict[str, object]) -> None:
    _, adjoint = gradient_of(**options)
    # z³ is small beside the rest. Transposed, few steps do; as it is, it would take hundreds.
    assert adjoint.steps <= 5  # type: ignore[attr-defined]


def test_a_preconditioner_that_autograd_cannot_follow_serves_the_solve_alone() -> None:
    _, adjoint = gradient_of(preconditioner=by_numpy)
    assert adjoint.steps > 5  # type: ignore[attr-defined]


def test_a_preconditioner_with_another_transpose_is_left_out() -> None:
    _, adjoint = gradient_of(preconditioner=lambda v: (INVERSE @ v).detach() + 0 * v)
    _, without = gradient_of(preconditioner=by_numpy)
    assert adjoint.steps == without.steps  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [
        {"solver": NewtonKrylov(linear_solver=SparseLU())},
        {"sparsity": dense_jacobian(X).numpy() != 0},
    ],
    ids=["found", "given"],
)
def test_a_pattern_serves_the_adjoint_transposed(options: dict[str, object]) -> None:
    _, adjoint = gradient_of(**options)
    counts = adjoint.counts  # type: ignore[attr-defined]
    # Four or five colours and a product that confirms them: no search, and no Krylov space.
    assert counts.products <= 8
    assert counts.evaluations <= 4


def test_a_polyalgorithm_hands_on_what_its_winner_knew() -> None:
    members = (NewtonKrylov(linear_solver=SparseLU()),)
    _, adjoint = gradient_of(solver=Polyalgorithm(members))
    assert adjoint.counts.evaluations <= 4  # type: ignore[attr-defined]
    assert Polyalgorithm().for_derivative(None) is None


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd])
def test_maps_of_cotangents_keep_the_preconditioner(transform: Callable[..., Any]) -> None:
    def first(x: Tensor) -> Tensor:
        z0 = torch.zeros(N, dtype=torch.float64)
        precondition = lambda v: INVERSE @ v  # noqa: E731
        return root(transport, z0, x[0] * X, preconditioner=precondition, stopping=TIGHT).value[:3]

    x = torch.ones(1, dtype=torch.float64)
    found = transform(first)(x)
    z = root(transport, torch.zeros_like(X), X, stopping=TIGHT).value
    expected = torch.linalg.solve(dense_jacobian(z), X)[:3, None]
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)


def test_second_derivatives_follow_as_well() -> None:
    x = X.clone().requires_grad_()
    solver = NewtonKrylov(linear_solver=SparseLU())
    solution = root(transport, torch.zeros_like(X), x, solver=solver, stopping=TIGHT)
    (gradient,) = torch.autograd.grad(solution.value @ WEIGHT, x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert all(solve.counts.evaluations <= 4 for solve in solution.adjoints)
    z = solution.value.detach()
    jacobian = dense_jacobian(z)
    # u = J⁻ᵀw, z′ = J⁻¹1 along ones: the gradient of the sum is −J⁻ᵀ (6 z ∘ z′ ∘ u).
    u, slope = torch.linalg.solve(jacobian.mT, WEIGHT), torch.linalg.solve(jacobian, X)
    expected = -torch.linalg.solve(jacobian.mT, 6 * z * slope * u)
    torch.testing.assert_close(second, expected, rtol=1e-6, atol=1e-12)


def test_a_limit_on_steps_takes_the_solver_that_knows() -> None:
    gradient = Exact(stopping=Stopping(rtol=1e-10, max_steps=7))
    _, adjoint = gradient_of(preconditioner=lambda v: INVERSE @ v, gradient=gradient)
    assert adjoint.steps <= 7  # type: ignore[attr-defined]


def test_small_equations_keep_factors() -> None:
    x = torch.ones(5, dtype=torch.float64).requires_grad_()
    solver = NewtonKrylov(linear_solver=SparseLU())
    solution = root(transport, torch.zeros(5, dtype=torch.float64), x, solver=solver)
    (gradient,) = torch.autograd.grad(solution.value.sum(), x)
    expected = torch.linalg.solve(
        dense_jacobian(solution.value.detach()).mT, torch.ones(5, dtype=torch.float64)
    )
    np.testing.assert_allclose(gradient.numpy(), expected.numpy(), rtol=1e-9)
