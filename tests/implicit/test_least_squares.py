"""Least squares as an implicit function: minimisers, their derivatives in every mode, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import implicitly as im
import numpy as np
import pytest
import torch
from implicitly.implicit.gradients import least_squares as least_squares_modes
from implicitly.solvers.least_squares.gauss_newton import Steps
from implicitly.verification import verify
from scipy import sparse
from scipy.optimize import least_squares as scipy_least_squares
from scipy.sparse.linalg import spsolve
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

D = torch.float64
T = torch.linspace(0.0, 3.0, 8, dtype=D)
# Residuals that stay: the Hessian is not Gauss–Newton's.
Y = 2.0 * torch.exp(-0.5 * T) + 0.2 * torch.cos(4.0 * T)
START = torch.tensor([1.0, 0.0], dtype=D)
TIGHT = im.Stopping(rtol=1e-12)


def exponential(z: Tensor, y: Tensor) -> Tensor:
    return z[0] * torch.exp(z[1] * T) - y


def fitted(y: Tensor, **options: Any) -> Tensor:
    return im.least_squares(exponential, START, y, stopping=TIGHT, **options).value


def polished(y: Tensor, loss: im.Loss | None = None) -> Tensor:
    """The minimiser by Newton's method on the gradient, from the dense Hessian; differentiable once."""

    def objective(z: Tensor, y: Tensor) -> Tensor:
        r = exponential(z, y)
        return 0.5 * (r**2 if loss is None else loss.of(r)).sum()

    z = fitted(y.detach(), loss=loss)
    for _ in range(3):
        g = torch.func.grad(objective)(z, y)
        z = z.detach() - torch.linalg.solve(torch.func.hessian(objective)(z.detach(), y), g)
    return z


LOSSES = {
    "huber": im.Huber(0.1),
    "soft_l1": im.SoftL1(0.1),
    "cauchy": im.Cauchy(0.3),
    "arctan": im.Arctan(0.5),
}


@pytest.mark.parametrize("steps", ["levenberg-marquardt", "dogleg", "shortened"])
def test_every_step_finds_the_minimum_that_scipy_finds(steps: Steps) -> None:
    solution = im.least_squares(exponential, START, Y, solver=im.GaussNewton(steps))
    theirs = scipy_least_squares(
        lambda z: exponential(torch.from_numpy(z), Y).numpy(), START.numpy(), xtol=1e-15, ftol=1e-15
    )
    assert bool(solution.converged)
    # SciPy differentiates by differences and stops on the objective: half of the digits.
    np.testing.assert_allclose(solution.value, theirs.x, rtol=1e-6)
    assert solution.error.item() <= 1e-8


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_gives_the_minimum_that_scipy_finds_with_it(loss: str) -> None:
    y = Y.clone()
    y[3] += 4.0  # An outlier.
    z = im.least_squares(exponential, START, y, loss=LOSSES[loss]).value
    theirs = scipy_least_squares(
        lambda z: exponential(torch.from_numpy(z), y).numpy(), z.numpy() * 1.01, loss=loss,
        f_scale=LOSSES[loss].scale, xtol=1e-15, ftol=1e-15,
    )  # fmt: skip
    np.testing.assert_allclose(z, theirs.x, rtol=1e-5)


@pytest.mark.parametrize("solver", [im.NewtonCG(), im.KrylovGaussNewton(), im.LBFGS()])
def test_solvers_by_products_find_the_same_minimum(solver: im.Solver) -> None:
    z = im.least_squares(exponential, START, Y, solver=solver).value
    torch.testing.assert_close(z, fitted(Y), rtol=1e-7, atol=0.0)


@pytest.mark.parametrize(
    "loss", [None, *(pytest.param(loss, marks=pytest.mark.long) for loss in LOSSES.values())]
)
def test_the_derivative_is_that_of_a_polished_minimiser(loss: im.Loss | None) -> None:
    y = Y.clone().requires_grad_()
    mine = torch.func.jacrev(lambda y: fitted(y, loss=loss))(Y)
    h = 1e-4
    unit = torch.eye(len(Y), dtype=D)
    columns = [(polished(Y + h * e, loss) - polished(Y - h * e, loss)) / (2 * h) for e in unit]
    # Differences of second order: h² times a third derivative of the size of 1/scale².
    torch.testing.assert_close(mine, torch.stack(columns, dim=1), rtol=1e-5, atol=1e-5)
    assert gradcheck(lambda y: fitted(y, loss=loss), (y,), check_forward_ad=True)


def test_second_derivatives_agree_in_every_mode() -> None:
    y = Y.clone().requires_grad_()
    assert gradcheck(
        fitted,
        (y,),
        check_batched_grad=True,
        check_batched_forward_grad=True,
        check_forward_ad=True,
    )
    assert gradgradcheck(fitted, (y,))
    total = lambda y: fitted(y).sum()  # noqa: E731
    reverse = torch.func.jacrev(torch.func.jacrev(total))(Y)
    mixed = torch.func.jacfwd(torch.func.jacrev(total))(Y)
    torch.testing.assert_close(reverse, mixed, rtol=1e-9, atol=1e-11)


def test_problems_of_a_batch_are_independent_and_equal_mapped_ones() -> None:
    factors = torch.tensor([0.5, 1.0, 1.5], dtype=D)
    y = factors[:, None] * Y

    def r(z: Tensor, y: Tensor) -> Tensor:
        return z[:, :1] * torch.exp(z[:, 1:] * T) - y

    solution = im.least_squares(
        r, START.expand(3, 2), y, batch_dims=1, batched_args=[True], stopping=TIGHT
    )
    assert solution.converged.tolist() == [True] * 3
    torch.testing.assert_close(solution.value, torch.vmap(fitted)(y), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        solution.value, torch.stack([fitted(one) for one in y]), rtol=1e-10, atol=0
    )
    mapped = torch.vmap(torch.func.jacrev(fitted))(y)
    alone = torch.stack([torch.func.jacrev(fitted)(one) for one in y])
    torch.testing.assert_close(mapped, alone, rtol=1e-9, atol=1e-11)


def test_unknowns_and_residuals_may_be_structures() -> None:
    def r(z: dict[str, Tensor], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return z["a"] - x, {"b": (z["b"] - 2 * x).reshape(1, 1), "c": z["a"] * z["b"]}

    x = torch.tensor(1.5, dtype=D, requires_grad=True)
    start = {"a": torch.ones((), dtype=D), "b": torch.ones((), dtype=D)}
    z = im.least_squares(r, start, x, stopping=TIGHT).value
    flat = lambda z: torch.stack((z[0] - 1.5, z[1] - 3.0, z[0] * z[1]))  # noqa: E731
    theirs = im.least_squares(flat, torch.ones(2, dtype=D), stopping=TIGHT).value
    torch.testing.assert_close(torch.stack((z["a"], z["b"])), theirs, rtol=1e-10, atol=1e-12)
    z["a"].backward()
    assert x.grad is not None


def test_complex_residuals_and_unknowns_count_by_their_moduli() -> None:
    A = torch.tensor([[1 + 1j, 2.0], [0.5j, 1.0], [1.0, -1j]], dtype=torch.complex128)
    b = torch.tensor([1.0, 2j, 1 - 1j], dtype=torch.complex128)
    z = im.least_squares(lambda z: A @ z - b, torch.zeros(2, dtype=torch.complex128)).value
    torch.testing.assert_close(z, torch.linalg.lstsq(A, b.unsqueeze(1)).solution.squeeze(1))


def test_captured_parameters_get_gradients() -> None:
    layer = torch.nn.Linear(2, 5, dtype=D)
    target = torch.arange(5, dtype=D)
    z = im.least_squares(lambda z: layer(z) - target, torch.zeros(2, dtype=D)).value
    z.sum().backward()
    weight = layer.weight.detach().clone().requires_grad_()
    normal = torch.linalg.solve(weight.mT @ weight, weight.mT @ (target - layer.bias.detach()))
    normal.sum().backward()
    # The condition of the normal equations is that of a random matrix, below 1e3.
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-9, atol=1e-10)


# --- Rank ------------------------------------------------------------------------------------------

WIDE = torch.tensor([[1.0, 2.0, 0.0, 1.0], [0.0, 1.0, 1.0, -1.0]], dtype=D)


def wide(b: Tensor, **options: Any) -> Tensor:
    return im.least_squares(lambda z, b: WIDE @ z - b, torch.zeros(4, dtype=D), b, **options).value


def test_fewer_residuals_than_unknowns_have_the_solution_and_derivative_of_minimum_norm() -> None:
    b = torch.tensor([1.0, -2.0], dtype=D)
    inverse = torch.linalg.pinv(WIDE)
    torch.testing.assert_close(wide(b), inverse @ b)
    modes = (torch.func.jacrev, torch.func.jacfwd)
    for mode in modes:
        mine = mode(lambda b: wide(b, gradient=im.MinimumNorm()))(b)
        torch.testing.assert_close(mine, inverse, rtol=1e-9, atol=1e-12)


def test_higher_derivatives_of_minimum_norm_are_those_of_the_pseudo_inverse() -> None:
    def root_of_sines(b: Tensor) -> Tensor:
        r = lambda z, b: WIDE @ torch.sin(z) - b  # noqa: E731
        start = torch.zeros(4, dtype=D)
        z = im.least_squares(r, start, b, gradient=im.MinimumNorm(), stopping=TIGHT).value
        return z.square().sum()

    b = torch.tensor([0.3, -0.2], dtype=D, requires_grad=True)
    assert gradgradcheck(root_of_sines, (b,))


def test_dependent_columns_have_the_least_squares_solution_of_minimum_norm() -> None:
    A = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], dtype=D)
    b = torch.tensor([1.0, 2.0, 4.0], dtype=D)
    solution = im.least_squares(lambda z: A @ z - b, torch.zeros(2, dtype=D))
    assert bool(solution.converged)
    torch.testing.assert_close(solution.value, torch.linalg.pinv(A) @ b)


def test_a_singular_adjoint_is_an_error_that_names_the_way_out() -> None:
    b = torch.tensor([1.0, -2.0], dtype=D, requires_grad=True)
    with pytest.raises(im.SolveError, match=r"the adjoint of[\s\S]*gradient=MinimumNorm"):
        wide(b)[0].backward()


def test_gauss_newtons_derivative_is_exact_without_residuals_and_an_approximation_with() -> None:
    exact = torch.func.jacrev(fitted)
    approximate = torch.func.jacrev(lambda y: fitted(y, gradient=im.GaussNewtonApproximation()))
    clean = 2.0 * torch.exp(-0.5 * T)
    torch.testing.assert_close(approximate(clean), exact(clean), rtol=1e-7, atol=1e-9)
    J = torch.func.jacrev(exponential)(fitted(Y), Y)
    expected = torch.linalg.pinv(J)

    def half(z: Tensor, y: Tensor) -> Tensor:
        return 0.5 * exponential(z, y).square().sum()

    H = torch.func.hessian(half)(fitted(Y), Y)
    cross = torch.func.jacfwd(torch.func.grad(half), argnums=1)
    torch.testing.assert_close(
        exact(Y), -torch.linalg.solve(H, cross(fitted(Y), Y)), rtol=1e-8, atol=1e-10
    )
    torch.testing.assert_close(approximate(Y), expected, rtol=1e-8, atol=1e-10)
    assert not torch.allclose(approximate(Y), exact(Y), rtol=1e-3)
    assert not im.GaussNewtonApproximation.exact


# --- Honesty ---------------------------------------------------------------------------------------


def test_verify_finds_the_derivative_correct() -> None:
    report = verify(lambda y: fitted(y), (Y.clone().requires_grad_(),))
    assert report.verdict.name == "CORRECT", str(report)


def test_a_minimum_at_infinity_is_no_minimum() -> None:
    r = lambda z: torch.exp(-z)  # noqa: E731
    solution = im.least_squares(r, torch.ones(1, dtype=D), on_failure="accept")
    assert not bool(solution.converged)


def test_residuals_of_changing_shape_are_an_error() -> None:
    def r(z: Tensor) -> Tensor:
        return (z - 3) if z[0] < 1 else torch.cat((z, z)) - 3

    with pytest.raises(ValueError, match=r"same shapes in each evaluation: they were \[\(1,\)\]"):
        im.least_squares(r, torch.zeros(1, dtype=D))


@pytest.mark.parametrize(
    ("r", "kind", "words"),
    [
        (lambda z: 1.0, TypeError, "floating-point or complex residuals, got float"),
        (lambda z: (), TypeError, "empty structure"),
        (lambda z: torch.ones(3), ValueError, "first axes are those of the systems"),
        (lambda z: z.detach() - 1, im.MissingDerivativeError, "carries no derivative"),
    ],
)
def test_residuals_that_cannot_be_are_errors(r: Callable[..., Any], kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        im.least_squares(r, torch.zeros(2, 3, dtype=D), batch_dims=1)


def test_options_that_cannot_be_are_errors() -> None:
    start = torch.zeros(2, dtype=D)
    with pytest.raises(TypeError, match=r"loss must be an instance such as Huber"):
        im.least_squares(lambda z: z, start, loss="huber")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="differentiates iterations"):
        im.least_squares(lambda z: z, start, gradient=im.Unrolled())
    with pytest.raises(TypeError, match="have none: call least_squares or minimise"):
        im.root(lambda z: z - 1, start, solver=im.GaussNewton())
    with pytest.raises(TypeError, match="needs residuals, and the objective is a number"):
        im.minimise(lambda z: (z - 1).square().sum(), start, solver=im.GaussNewton())
    x, mode = torch.ones(2, dtype=D, requires_grad=True), im.GaussNewtonApproximation()
    z = im.minimise(lambda z, x: (z - x).square().sum(), start, x, gradient=mode).value
    with pytest.raises(TypeError, match="needs the residuals of least_squares"):
        z.sum().backward()
    with pytest.raises(ValueError, match="scale must be a number > 0"):
        im.Huber(scale=0.0)
    with pytest.raises(ValueError, match="steps must be one of"):
        im.GaussNewton("newton")  # type: ignore[arg-type]


def test_an_exception_at_a_trial_point_shortens_the_step() -> None:
    def r(z: Tensor) -> Tensor:
        if bool((z < 0).any()):
            raise ValueError("below zero")
        return torch.sqrt(z) - 2.0 + 0.01 * z

    solution = im.least_squares(r, torch.full((1,), 30.0, dtype=D))
    expected = (-1 + (1 + 4 * 0.01 * 2) ** 0.5) / (2 * 0.01)
    assert solution.value.item() == pytest.approx(expected**2, rel=1e-8)


def smoothing(n: int) -> tuple[Callable[..., Tensor], Tensor]:
    """A smoothing spline through the inverse of a nonlinear measurement, and its data."""
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 1, n, dtype=D)
    y = torch.sin(12 * t) + 0.3 * torch.randn(n, generator=generator, dtype=D)

    def r(z: Tensor, y: Tensor) -> Tensor:
        return torch.cat((torch.sinh(z) - y, 5.0 * z.diff(n=2)))

    return r, y


@pytest.mark.parametrize("solver", [None, im.KrylovGaussNewton()])
def test_ten_thousand_unknowns_have_the_minimum_and_the_derivatives_of_sparse_matrices(
    solver: im.Solver | None,
) -> None:
    n = 10_000
    r, y = smoothing(n)
    second = sparse.diags_array([5.0, -10.0, 5.0], offsets=[0, 1, 2], shape=(n - 2, n))

    def jacobian(z: np.ndarray, _: Tensor = y) -> sparse.csr_array:
        return sparse.vstack((sparse.diags_array(np.cosh(z)), second), format="csr")

    theirs = scipy_least_squares(
        lambda z: r(torch.from_numpy(z), y).numpy(), np.zeros(n), jacobian, tr_solver="lsmr",
        x_scale="jac", xtol=1e-12, ftol=1e-12, gtol=1e-12,
    )  # fmt: skip
    y.requires_grad_()
    weights = torch.randn(n, generator=torch.Generator().manual_seed(1), dtype=D)
    for gradient, curvature in (
        (im.Exact(solver=im.CG()), 1.0),
        (im.GaussNewtonApproximation(), 0.0),
    ):
        solution = im.least_squares(r, torch.zeros(n, dtype=D), y, solver=solver, gradient=gradient)
        z = solution.value.detach().numpy()
        J, left = jacobian(z), r(solution.value, y).detach().numpy()
        # SciPy stops on the objective, from where the gradient leads to less than half of the digits.
        np.testing.assert_allclose(z, theirs.x, rtol=0, atol=1e-3)
        assert np.abs(J.T @ left).max() < 1e-7 < np.abs(theirs.jac.T @ theirs.fun).max() * 1e3
        hessian = J.T @ J + sparse.diags_array(curvature * left[:n] * np.sinh(z))
        (found,) = torch.autograd.grad(solution.value @ weights, y)
        expected = np.cosh(z) * spsolve(hessian.tocsc(), weights.numpy())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_gauss_newton_derivative_by_products_is_that_of_dense_matrices() -> None:
    r, y = smoothing(60)
    y.requires_grad_()
    found = []
    for most in (2048, 10):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(least_squares_modes, "_MOST_DENSE", most)
            mode = im.GaussNewtonApproximation()
            z = im.least_squares(r, torch.zeros(60, dtype=D), y, gradient=mode).value
            (first,) = torch.autograd.grad(z[30], y, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), y)
            found.append((first.detach(), second))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_steps_by_products_are_those_of_dense_matrices_in_any_units() -> None:
    units = torch.tensor([1.0, 1e5], dtype=D)

    def scaled(z: Tensor, y: Tensor) -> Tensor:
        return exponential(z * units, y)

    for start in (START, torch.tensor([5.0, 3.0], dtype=D)):
        z = im.least_squares(scaled, start / units, Y, solver=im.KrylovGaussNewton()).value
        torch.testing.assert_close(z * units, fitted(Y), rtol=1e-7, atol=0.0)


def test_the_hessian_is_used_where_the_linear_model_converges_slowly() -> None:
    y = torch.tensor([3.0, -3.0, 2.5], dtype=D)  # Residuals that stay large.

    def r(z: Tensor, y: Tensor) -> Tensor:
        return torch.stack((z[0] - y[0], torch.sin(3 * z[0]) - y[1], z[0] ** 2 - y[2]))

    start = torch.tensor([1.2], dtype=D)
    steps = [
        int(im.least_squares(r, start, y, solver=im.KrylovGaussNewton(second_order=use)).steps)
        for use in (True, False)
    ]
    assert 2 * steps[0] < steps[1]
