"""Constrained minimisers as fixed points and roots, against SciPy's and closed forms."""

from __future__ import annotations

from collections.abc import Callable

import implicitly as im
import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, linprog, minimize
from torch import Tensor
from torch.autograd import gradcheck

D = torch.float64
TIGHT = im.Stopping(rtol=1e-12)
X = torch.tensor([0.9, 0.4, -0.5, 0.2], dtype=D)


def half_distance(z: Tensor, x: Tensor) -> Tensor:
    return 0.5 * (z - x).square().sum(-1)


SETS: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, object]]] = {
    "simplex": (
        im.onto_simplex,
        {"bounds": [(0, None)] * 4, "constraints": LinearConstraint(np.ones(4), 1, 1)},
    ),
    "box": (lambda z: im.onto_box(z, -0.1, 0.3), {"bounds": [(-0.1, 0.3)] * 4}),
    "ball": (
        lambda z: im.onto_ball(z, 0.5),
        {"constraints": {"type": "ineq", "fun": lambda z: 0.25 - (z**2).sum()}},
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_projections_are_the_nearest_points_that_scipy_finds(name: str) -> None:
    project, constraints = SETS[name]
    theirs = minimize(
        lambda z: 0.5 * ((z - X.numpy()) ** 2).sum(), np.full(4, 0.2), method="SLSQP",
        options={"ftol": 1e-14}, **constraints,
    )  # fmt: skip
    # SciPy stops on the objective, to half of the digits.
    np.testing.assert_allclose(project(X), theirs.x, atol=1e-6)
    torch.testing.assert_close(project(project(X)), project(X), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", SETS)
def test_minimisers_over_a_set_are_those_of_scipy_and_have_exact_derivatives(name: str) -> None:
    project, constraints = SETS[name]
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(6, 4, generator=generator, dtype=D)
    b = torch.randn(6, generator=generator, dtype=D).requires_grad_()

    def objective(z: Tensor, b: Tensor) -> Tensor:
        return 0.5 * (A @ z - b).square().sum()

    step = 1.0 / torch.linalg.matrix_norm(A, 2).item() ** 2
    mapped = im.projected_gradient(objective, project, step)

    def constrained(b: Tensor) -> Tensor:
        start = torch.full((4,), 0.2, dtype=D)
        return im.fixed_point(mapped, start, b, stopping=TIGHT).value

    theirs = minimize(
        lambda z: objective(torch.from_numpy(z), b.detach()).item(), np.full(4, 0.2), method="SLSQP",
        options={"ftol": 1e-14}, **constraints,
    )  # fmt: skip
    np.testing.assert_allclose(constrained(b).detach(), theirs.x, atol=1e-6)
    assert gradcheck(constrained, (b,))


def test_the_lasso_has_the_solution_and_derivative_of_its_active_set() -> None:
    generator = torch.Generator().manual_seed(2)
    A = torch.randn(20, 6, generator=generator, dtype=D)
    b = torch.randn(20, generator=generator, dtype=D)
    weight = torch.tensor(4.0, dtype=D, requires_grad=True)
    step = 1.0 / torch.linalg.matrix_norm(A, 2).item() ** 2

    def lasso(weight: Tensor) -> Tensor:
        mapped = im.proximal_gradient(
            lambda z, w: 0.5 * (A @ z - b).square().sum(),
            lambda v, step: im.soft_threshold(v, step * weight),
            step,
        )
        return im.fixed_point(mapped, torch.zeros(6, dtype=D), weight, stopping=TIGHT).value

    z = lasso(weight)
    active = z.detach() != 0
    assert 0 < int(active.sum()) < 6
    signs, part = z.detach().sign()[active], A[:, active]
    closed = torch.linalg.solve(part.mT @ part, part.mT @ b - weight.detach() * signs)
    torch.testing.assert_close(z.detach()[active], closed, rtol=1e-9, atol=0)
    (mine,) = torch.autograd.grad(z.sum(), weight)
    expected = -torch.linalg.solve(part.mT @ part, signs).sum()
    assert mine.item() == pytest.approx(expected.item(), rel=1e-8)


def test_a_sinkhorn_plan_has_its_marginals_and_the_cost_of_transport_for_small_entropy() -> None:
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(4, 5, generator=generator, dtype=D)
    a, b = torch.full((4,), 0.25, dtype=D), torch.full((5,), 0.2, dtype=D)

    def plan(cost: Tensor, epsilon: float) -> Tensor:
        z = im.fixed_point(
            im.sinkhorn, torch.zeros(5, dtype=D), cost, a, b, epsilon, stopping=TIGHT
        ).value
        return im.transport_plan(z, cost, a, epsilon)

    potential = im.sinkhorn(torch.arange(5, dtype=D), cost, a, b, 0.3)
    assert abs(potential.mean().item()) <= 1e-14
    fine = plan(cost, 0.01)
    torch.testing.assert_close(fine.sum(1), a, rtol=1e-9, atol=0)
    torch.testing.assert_close(fine.sum(0), b, rtol=1e-9, atol=0)
    rows = np.kron(np.eye(4), np.ones(5))
    columns = np.kron(np.ones(4), np.eye(5))
    exact = linprog(
        cost.flatten().numpy(), A_eq=np.vstack((rows, columns)), b_eq=np.concatenate((a, b))
    )
    # The entropy of a plan is at most log 20, so that its cost is too large by at most 0.01 log 20.
    assert exact.fun - 1e-12 <= (fine * cost).sum().item() <= exact.fun + 0.01 * np.log(20)
    assert gradcheck(lambda cost: plan(cost, 0.3), (cost.clone().requires_grad_(),))


def programme() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(4)
    root = torch.randn(5, 5, generator=generator, dtype=D)
    Q = root @ root.mT + torch.eye(5, dtype=D)
    q = torch.randn(5, generator=generator, dtype=D)
    A = torch.randn(2, 5, generator=generator, dtype=D)
    b = torch.randn(2, generator=generator, dtype=D)
    G = torch.randn(4, 5, generator=generator, dtype=D)
    h = torch.rand(4, generator=generator, dtype=D)
    return Q, q, A, b, G, h


def test_a_quadratic_programme_has_the_minimiser_of_scipy_and_exact_derivatives() -> None:
    Q, q, A, b, G, h = programme()
    solution = im.quadratic_programme(Q, q, A, b, G, h)
    found = solution.value
    theirs = minimize(
        lambda z: 0.5 * z @ Q.numpy() @ z + q.numpy() @ z, np.zeros(5),
        jac=lambda z: Q.numpy() @ z + q.numpy(),
        method="SLSQP", options={"ftol": 1e-15, "maxiter": 500},
        constraints=[
            LinearConstraint(A.numpy(), b.numpy(), b.numpy()),
            LinearConstraint(G.numpy(), -np.inf, h.numpy()),
        ],
    )  # fmt: skip
    np.testing.assert_allclose(found.z, theirs.x, atol=1e-6)
    slack = h - G @ found.z
    assert bool((found.inequality >= -1e-10).all())
    assert bool((slack >= -1e-10).all())
    assert (found.inequality * slack).abs().max().item() <= 1e-9
    assert bool((found.inequality > 1e-3).any())  # An inequality binds.

    def minimiser(q: Tensor, b: Tensor, h: Tensor) -> Tensor:
        return im.quadratic_programme(Q, q, A, b, G, h, stopping=TIGHT).value.z

    assert gradcheck(minimiser, tuple(t.clone().requires_grad_() for t in (q, b, h)))


def test_quadratic_programmes_of_a_batch_are_independent() -> None:
    Q, q, A, b, G, h = programme()
    many = torch.stack((q, -q, 2 * q))
    together = im.quadratic_programme(Q, many, A, b, G, h).value.z
    alone = torch.stack([im.quadratic_programme(Q, one, A, b, G, h).value.z for one in many])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-11)
    mapped = torch.vmap(lambda q: im.quadratic_programme(Q, q, A, b, G, h).value.z)(many)
    torch.testing.assert_close(mapped, alone, rtol=1e-9, atol=1e-11)


def test_programmes_without_a_solution_are_errors() -> None:
    I, zero = torch.eye(2, dtype=D), torch.zeros(2, dtype=D)
    with pytest.raises(im.SolveError):  # z ≤ −1 and z ≥ 1.
        im.quadratic_programme(I, zero, G=torch.cat((I, -I)), h=-torch.ones(4, dtype=D))
    with pytest.raises(ValueError, match="positive semidefinite, got one with the eigenvalue -1"):
        im.quadratic_programme(-I, zero)
    with pytest.raises(ValueError, match="A and b must be given together"):
        im.quadratic_programme(I, zero, A=I)


def test_options_that_cannot_be_are_errors() -> None:
    with pytest.raises(ValueError, match="step must be a number > 0"):
        im.projected_gradient(half_distance, im.onto_simplex, 0.0)
    with pytest.raises(ValueError, match="total must be"):
        im.onto_simplex(X, 0.0)
    with pytest.raises(ValueError, match="radius must be"):
        im.onto_ball(X, -1.0)
