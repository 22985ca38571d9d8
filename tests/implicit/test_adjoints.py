"""Adjoint equations: what is reported of them, what they cost, and where they are hard."""

import pytest
import torch
from implicitly import (
    Exact,
    NeumannSeries,
    Newton,
    Solution,
    SolveError,
    Status,
    Stopping,
    fixed_point,
    problems,
    root,
)
from oracle import relative
from torch import Tensor


def test_an_adjoint_that_is_not_solved_raises():
    w = torch.tensor([[2.0]], dtype=torch.float64)
    x = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    z = fixed_point(
        lambda z, x: z @ w + x, torch.zeros_like(x), x,
        solver=Newton(), gradient=Exact(NeumannSeries()), batch_dims=1,
    ).value  # fmt: skip
    with pytest.raises(SolveError, match="adjoint of the function .*\n.*DIVERGED"):
        z.sum().backward()


@pytest.mark.parametrize("condition", [1e2, 1e4])
@pytest.mark.parametrize("form", ["fixed_point", "root"])
def test_default_float32_adjoints_of_ill_conditioned_equations_end_at_the_rounding_level(
    condition, form
):
    n = 24
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, n, generator=generator))[0] for _ in range(2))
    decades = float(torch.log10(torch.tensor(condition)))
    a = (left * torch.logspace(0, -decades, n)) @ right
    x = torch.randn(4, n, generator=generator).requires_grad_()
    options = {"solver": Newton(), "batch_dims": 1, "on_failure": "accept"}
    if form == "root":
        solution = root(lambda z, x: z @ a.mT - x, torch.zeros(4, n), x, **options)
    else:
        solution = fixed_point(lambda z, x: z - z @ a.mT + x, torch.zeros(4, n), x, **options)
    (gradient,) = torch.autograd.grad(solution.value.sum(), x)
    assert solution.adjoints[0].converged.all()
    expected = torch.linalg.solve(a.double().mT, torch.ones(n).double()).expand(4, n)
    # Backward stable to a few units: the error is that times the condition number.
    assert relative(gradient.double(), expected) < 100 * torch.finfo(torch.float32).eps * condition


def test_a_backward_pass_evaluates_the_function_twice_whatever_the_adjoint_solver_does():
    calls = []

    def f(z, x):
        calls.append(z)
        return 0.5 * torch.sin(z.flip(-1)) + x

    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4).requires_grad_()
    solution = fixed_point(f, torch.zeros_like(x), x, batch_dims=1)
    calls.clear()
    solution.value.sum().backward()
    # Once for products with the Jacobian, which the linear solver takes, and once for the arguments.
    assert len(calls) == 2
    # GMRES starts at zero, where the value is known: 4 steps for 4 unknowns, and the confirmation.
    assert solution.adjoints[0].counts.evaluations <= 4 + 1


@pytest.mark.long
def test_where_gmres_fails_the_default_adjoint_is_solved_by_factors() -> None:
    problem = problems.get("power-flow")
    loading = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    start = problem.start(600)

    def gradient(mode: Exact) -> tuple[Tensor, Solution]:
        solution = root(problem.function, start, loading, gradient=mode)
        (found,) = torch.autograd.grad(solution.value.sum(), loading)
        return found, solution

    found, solution = gradient(Exact())
    assert solution.adjoints[0].converged
    z = solution.value.detach()
    jacobian = torch.func.jacrev(problem.function)(z, loading.detach())
    by_loading = torch.func.jacrev(problem.function, argnums=1)(z, loading.detach())
    expected = -torch.linalg.solve(jacobian, by_loading).sum()
    # Root and adjoint are each within 1e-10, relative to residuals of one, by the inverse.
    inverse = 1 / torch.linalg.svdvals(jacobian)[-1]
    assert (found - expected).abs() <= 1e-10 * inverse * 600
    # Limited steps are those of GMRES alone, and what they reach is taken or refused as such.
    with pytest.raises(SolveError, match="GMRES"):
        gradient(Exact(stopping=Stopping(max_steps=1000)))


def contracting(n: int, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(n, n, generator=generator, dtype=torch.float64)
    W = 0.5 * W / torch.linalg.matrix_norm(W, 2)
    x = torch.randn(batch, n, generator=generator, dtype=torch.float64)
    return W.to(dtype), x.to(dtype).requires_grad_()


@pytest.mark.parametrize("exponent", [-126, -130, -148])
@pytest.mark.parametrize("n", [1, 40, 600])
@pytest.mark.parametrize("solve", [fixed_point, root])
def test_cotangents_below_the_range_of_the_dtype_have_gradients(solve, n, exponent):
    W, x = contracting(n, 1, torch.float32)

    def equation(z: Tensor, x: Tensor) -> Tensor:
        value = torch.tanh(z @ W.mT + x)
        return value if solve is fixed_point else value - z

    z = solve(equation, torch.zeros_like(x), x, batch_dims=1).value
    cotangent = torch.full_like(z, 2.0**exponent)
    (gradient,) = torch.autograd.grad(z, x, cotangent)
    slope = 1 - z.detach().double().square()
    matrix = torch.eye(n) - slope.unsqueeze(2) * W.double()
    adjoint = torch.linalg.solve(matrix.mT, cotangent.double().unsqueeze(2)).squeeze(2)
    # The numbers themselves are multiples of 2 ** -149, and products of two of them are rounded once more.
    torch.testing.assert_close(gradient.double(), slope * adjoint, rtol=1e-3, atol=3 * 2.0**-149)


def test_a_system_with_a_tiny_cotangent_changes_no_digit_of_another_gradient():
    W, x = contracting(8, 2, torch.float32)
    z = fixed_point(
        lambda z, x: torch.tanh(z @ W.mT + x), torch.zeros_like(x), x, batch_dims=1
    ).value
    gradients = []
    for size in (1.0, 2.0**-140):
        cotangent = torch.ones_like(z)
        cotangent[1] = size
        gradients.append(torch.autograd.grad(z, x, cotangent, retain_graph=True)[0])
    assert torch.equal(gradients[0][0], gradients[1][0])


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("solve", [fixed_point, root])
def test_a_cotangent_that_is_not_finite_gives_nan_as_elsewhere_in_pytorch(solve, value):
    W, x = contracting(6, 3, torch.float32)
    W.requires_grad_()

    def equation(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        f = torch.tanh(z @ W.mT + x)
        return f if solve is fixed_point else f - z

    solution = solve(equation, torch.zeros_like(x), W, x, batch_dims=1)
    cotangent = torch.ones_like(x)
    (expected,) = torch.autograd.grad(solution.value, x, cotangent, retain_graph=True)
    cotangent[1, 2] = value
    by_W, by_x = torch.autograd.grad(solution.value, (W, x), cotangent)
    assert by_W.isnan().all()
    assert by_x[1].isnan().all()
    torch.testing.assert_close(by_x[[0, 2]], expected[[0, 2]], rtol=0, atol=0)
    statuses = [Status(int(code)).name for code in solution.adjoints[-1].status]
    assert statuses == ["CONVERGED", "NON_FINITE", "CONVERGED"]


def test_a_scaler_of_gradients_skips_a_step_that_overflows():
    W, x = contracting(6, 3, torch.float32)
    W.requires_grad_()
    before, optimiser = W.detach().clone(), torch.optim.SGD([W], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    z = fixed_point(lambda z: torch.tanh(z @ W.mT + x), torch.zeros_like(x)).value
    scaler.scale(100 * z.sum()).backward()
    scaler.step(optimiser)
    scaler.update()
    assert torch.equal(W, before)
    assert scaler.get_scale() == 2.0**126
