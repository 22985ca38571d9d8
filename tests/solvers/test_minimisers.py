"""Minimisers in parts: the trust-region subproblem, truncated conjugate gradients, scaling, losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from implicitly.solvers import Cauchy, GaussNewton, Huber, NewtonCG, Problem, SoftL1
from implicitly.solvers.driving.minima import curvature_by_products, equilibrated
from implicitly.solvers.interface.objective import Objective
from implicitly.solvers.minimisation.descent import DescentState, two_loops
from implicitly.solvers.minimisation.krylov_region import truncated
from implicitly.solvers.minimisation.subproblem import dogleg_step, optimal_step, straight_step
from scipy.optimize import minimize
from torch import Tensor

D = torch.float64
RANK = 1e-14


class _Symmetric:
    """Products with a symmetric matrix."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def jvp(self, v: Tensor) -> Tensor:
        return v @ self.matrix

    def vjp(self, u: Tensor) -> Tensor:
        return u @ self.matrix

    def jacobian(self, like: Tensor) -> Tensor:
        return self.matrix.expand(len(like), -1, -1)


def model(values: Tensor, c: Tensor, y: Tensor) -> Tensor:
    return (c * y + 0.5 * values * y * y).sum(-1)


def random_models(count: int, n: int, least: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(int(10 * abs(least)) + n)
    values = (torch.rand(count, n, generator=generator, dtype=D) * 3 + least).sort(dim=1).values
    c = torch.randn(count, n, generator=generator, dtype=D)
    radius = 10 ** (2 * torch.rand(count, generator=generator, dtype=D) - 1.5)
    return values, c, radius


@pytest.mark.parametrize("least", [0.1, -1.0])
def test_the_step_is_the_minimiser_within_the_radius(least: float) -> None:
    values, c, radius = random_models(20, 4, least)
    y = optimal_step(values, c, radius, RANK)
    length = torch.linalg.vector_norm(y, dim=1)
    assert bool((length <= 1.05 * radius).all())
    for i in range(20):
        # Scaled to the length of the step, which may be a twentieth off the radius.
        bound = max(length[i].item(), 0.95 * radius[i].item())
        best = min(
            minimize(
                lambda y: model(values[i], c[i], torch.from_numpy(y)).item(),  # noqa: B023
                start,
                method="SLSQP",
                options={"ftol": 1e-14},
                constraints={"type": "ineq", "fun": lambda y: bound**2 - (y**2).sum()},  # noqa: B023
            ).fun
            for start in (np.full(4, 0.1), -np.full(4, 0.1))
        )
        assert model(values[i], c[i], y[i]).item() <= best + 1e-8 * abs(best)


def test_the_hard_case_goes_to_the_boundary_along_negative_curvature() -> None:
    values = torch.tensor([[-1.0, 2.0]], dtype=D)
    c = torch.tensor([[0.0, 1.0]], dtype=D)
    y = optimal_step(values, c, torch.tensor([5.0], dtype=D), RANK)
    # (H + I) y = −c has y₂ = −1/3, and the rest of the radius lies along the first axis.
    assert y[0, 1].item() == pytest.approx(-1 / 3, rel=1e-6)
    assert torch.linalg.vector_norm(y).item() == pytest.approx(5.0, rel=0.05)


def test_a_model_without_curvature_leads_down_its_gradient_to_the_boundary() -> None:
    gradient, radius = torch.tensor([[3.0, -4.0]], dtype=D), torch.tensor([2.0], dtype=D)
    step = optimal_step(torch.zeros(1, 2, dtype=D), gradient, radius, RANK)
    # The length need only be near the radius.
    torch.testing.assert_close(step, -radius * gradient / 5, rtol=0.1, atol=0)


def test_a_singular_model_has_the_step_of_minimum_norm() -> None:
    values = torch.tensor([[0.0, 2.0]], dtype=D)
    c = torch.tensor([[0.0, 1.0]], dtype=D)
    far = torch.tensor([100.0], dtype=D)
    for path in (optimal_step, dogleg_step, straight_step):
        assert path(values, c, far, RANK).tolist() == [[0.0, -0.5]]


def test_paths_end_at_the_radius_and_descend() -> None:
    values, c, radius = random_models(50, 5, 0.1)
    for path in (dogleg_step, straight_step):
        y = path(values, c, radius, RANK)
        assert bool((torch.linalg.vector_norm(y, dim=1) <= radius * (1 + 1e-12)).all())
        assert bool((model(values, c, y) < 0).all())
    # The dogleg is no worse than its first part, the Cauchy point.
    share = (c**2).sum(1) / (values * c**2).sum(1)
    share = torch.minimum(share, radius / torch.linalg.vector_norm(c, dim=1))
    cauchy = model(values, c, -share.unsqueeze(1) * c)
    assert bool((model(values, c, dogleg_step(values, c, radius, RANK)) <= cauchy + 1e-14).all())


def test_truncated_conjugate_gradients_solve_inside_and_leave_along_negative_curvature() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(2, 6, 6, generator=generator, dtype=D)
    matrices = root @ root.mT + torch.eye(6, dtype=D)
    g = torch.randn(2, 6, generator=generator, dtype=D)
    exact = torch.zeros(2, 1, dtype=D)

    def times(matrices: Tensor) -> object:
        return lambda v: torch.einsum("bij,bj->bi", matrices, v)

    step, promised = truncated(times(matrices), g, torch.full((2,), 1e6, dtype=D), exact, 50)  # type: ignore[arg-type]
    expected = -torch.linalg.solve(matrices, g)
    torch.testing.assert_close(step, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(promised, -0.5 * (g * expected).sum(1), rtol=1e-8, atol=0)
    step, promised = truncated(times(-matrices), g, torch.full((2,), 1e4, dtype=D), exact, 50)  # type: ignore[arg-type]
    torch.testing.assert_close(
        torch.linalg.vector_norm(step, dim=1), torch.full((2,), 1e4, dtype=D)
    )
    assert bool((promised > 0).all())


def test_two_loops_are_the_product_with_the_matrix_of_bfgs() -> None:
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(4, 4, generator=generator, dtype=D)
    hessian = root @ root.mT + torch.eye(4, dtype=D)
    moves = torch.randn(1, 3, 4, generator=generator, dtype=D)
    changes = moves @ hessian
    residual = torch.randn(1, 4, generator=generator, dtype=D)
    none = torch.zeros(1, dtype=D)
    state = DescentState(
        residual, residual, none, none[None], none[None], moves, changes, none, none, none
    )
    s, y = moves[0], changes[0]
    inverse = (s[0] @ y[0]) / (y[0] @ y[0]) * torch.eye(4, dtype=D)
    for k in (2, 1, 0):  # The oldest pair first.
        rho = 1 / (s[k] @ y[k])
        left = torch.eye(4, dtype=D) - rho * torch.outer(s[k], y[k])
        inverse = left @ inverse @ left.mT + rho * torch.outer(s[k], s[k])
    torch.testing.assert_close(two_loops(state)[0], inverse @ residual[0], rtol=1e-10, atol=1e-12)


def test_scaling_makes_hessians_of_any_units_alike() -> None:
    generator = torch.Generator().manual_seed(6)
    root = torch.randn(1, 5, 5, generator=generator, dtype=D)
    hessian = root @ root.mT
    units = 10.0 ** torch.tensor([[-8.0, -3.0, 0.0, 4.0, 9.0]], dtype=D)
    _, plain = equilibrated(hessian)
    _, scaled = equilibrated(hessian * units.unsqueeze(1) * units.unsqueeze(2))
    assert plain.abs().amax(dim=2).flatten().tolist() == pytest.approx([1.0] * 5, rel=0.1)
    torch.testing.assert_close(
        torch.linalg.eigvalsh(plain), torch.linalg.eigvalsh(scaled), rtol=0.3, atol=1e-3
    )


def test_products_find_the_sign_of_the_least_eigenvalue() -> None:
    generator = torch.Generator().manual_seed(7)
    basis = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=D)).Q
    values = torch.linspace(1.0, 3.0, 60, dtype=D)
    for least, sign in ((-0.5, -1.0), (0.5, 1.0), (0.0, 0.0)):
        hessian = basis @ torch.diag(values.index_fill(0, torch.tensor(0), least)) @ basis.mT

        def linearize(z: Tensor, hessian: Tensor = hessian) -> tuple[Tensor, _Symmetric]:
            return z @ hessian, _Symmetric(hessian)

        problem = Problem(lambda z: z, form="root", linearize=linearize)
        found, direction, _ = curvature_by_products(problem, torch.zeros(1, 60, dtype=D))
        assert found.item() == sign
        cosine = (direction[0] @ basis[:, 0]).abs() / torch.linalg.vector_norm(direction)
        assert cosine.item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("loss", [Huber(0.5), SoftL1(2.0), Cauchy(0.3)])
def test_the_weight_of_a_loss_is_its_derivative(loss: Huber) -> None:
    r = torch.tensor([-3.0, -0.4, 0.0, 0.1, 7.0], dtype=D)
    slope = torch.func.grad(lambda r: 0.5 * loss.of(r).sum())(r)
    torch.testing.assert_close(slope, loss.weight_of(r) * r, rtol=1e-12, atol=1e-15)


def test_solvers_need_an_objective_and_residuals() -> None:
    z = torch.ones(1, 2, dtype=D)
    equation = Problem(lambda z: z, form="root")
    with pytest.raises(TypeError, match="root and fixed_point have none"):
        NewtonCG().init(equation, z, z)
    number = Problem(lambda z: z, form="root", objective=Objective(lambda z: z.sum(1)))
    solver = GaussNewton()
    with pytest.raises(TypeError, match="needs residuals, and the objective is a number"):
        solver.step(number, solver.init(number, z, z))
