"""Minimisers as implicit functions: hypergradients against closed forms, and points that are no minima."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import implicitly as im
import pytest
import torch
from implicitly.verification import verify
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

D = torch.float64
TIGHT = im.Stopping(rtol=1e-12)
SOLVERS = [im.NewtonTrustRegion(), im.NewtonCG(), im.LBFGS(), im.GradientDescent(), im.Newton()]
X = torch.tensor([0.5, 2.0, -3.0], dtype=D)


def name(solver: im.Solver) -> str:
    return type(solver).__name__


def quartic(z: Tensor, x: Tensor) -> Tensor:
    """Its minimiser is the cube root of `x`."""
    return (z**4 / 4 - x * z).sum()


def cube_root(x: Tensor, **options: Any) -> Tensor:
    return im.minimise(
        quartic, torch.ones_like(x) * x.detach().sign(), x, stopping=TIGHT, **options
    ).value


def ridge(log_weight: Tensor, A: Tensor, b: Tensor, solver: im.Solver) -> Tensor:
    def objective(z: Tensor, log_weight: Tensor) -> Tensor:
        return 0.5 * (A @ z - b).square().sum() + 0.5 * log_weight.exp() * z.square().sum()

    start = torch.zeros(A.shape[1], dtype=D)
    return im.minimise(objective, start, log_weight, solver=solver, stopping=TIGHT).value


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_the_hypergradient_of_ridge_regression_is_its_closed_form(solver: im.Solver) -> None:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(20, 5, generator=generator, dtype=D)
    b = torch.randn(20, generator=generator, dtype=D)
    fresh = torch.randn(20, generator=generator, dtype=D)
    log_weight = torch.tensor(0.3, dtype=D, requires_grad=True)
    loss = (A @ ridge(log_weight, A, b, solver) - fresh).square().sum()
    (mine,) = torch.autograd.grad(loss, log_weight)

    weight = log_weight.detach().exp()
    matrix = A.mT @ A + weight * torch.eye(5, dtype=D)
    z = torch.linalg.solve(matrix, A.mT @ b)
    closed = (2 * A.mT @ (A @ z - fresh)) @ torch.linalg.solve(matrix, -weight * z)
    assert mine.item() == pytest.approx(closed.item(), rel=1e-8)


def test_derivatives_of_every_mode_are_those_of_the_closed_form() -> None:
    x = X.clone().requires_grad_()
    slope = 1 / (3 * cube_root(X) ** 2)
    torch.testing.assert_close(torch.func.jacrev(cube_root)(X).diagonal(), slope, rtol=1e-9, atol=0)
    torch.testing.assert_close(torch.func.jacfwd(cube_root)(X).diagonal(), slope, rtol=1e-9, atol=0)
    second = torch.func.hessian(lambda x: cube_root(x).sum())(X).diagonal()
    torch.testing.assert_close(second, -2 / (9 * cube_root(X) ** 5), rtol=1e-8, atol=0)
    assert gradcheck(cube_root, (x,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(cube_root, (x,))


def test_mapped_problems_equal_single_ones() -> None:
    many = torch.stack((X, 2 * X, X - 0.1))

    def one(x: Tensor) -> Tensor:
        return im.minimise(quartic, torch.ones(3, dtype=D), x, stopping=TIGHT).value

    mapped = torch.vmap(one)(many.abs())
    torch.testing.assert_close(mapped, many.abs() ** (1 / 3), rtol=1e-11, atol=0)
    rows = torch.stack([torch.func.jacrev(one)(x) for x in many.abs()])
    torch.testing.assert_close(
        torch.vmap(torch.func.jacrev(one))(many.abs()), rows, rtol=1e-9, atol=1e-12
    )


def test_a_batch_has_a_status_for_each_problem() -> None:
    # Minima at ±1, a maximum at the start of the second problem, no bound for the third.
    def objective(z: Tensor, sign: Tensor) -> Tensor:
        return (sign * (z**4 / 4 - z**2 / 2)).sum(-1)

    start = torch.tensor([[0.5], [0.0], [2.0]], dtype=D)
    sign = torch.tensor([[1.0], [1.0], [-1.0]], dtype=D)
    solution = im.minimise(objective, start, sign, batch_dims=1, on_failure="accept")
    found = [im.Status(int(code)).name for code in solution.status]
    assert found == ["CONVERGED", "NOT_A_MINIMUM", "UNBOUNDED"]
    assert solution.value[0].item() == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
@pytest.mark.parametrize(
    ("objective", "start"),
    [
        (lambda z: z[0] ** 2 - z[1] ** 2, [0.0, 0.0]),
        (lambda z: -(z**2).sum(), [0.0, 0.0]),
        (lambda z: z[0] ** 2 + z[1] ** 3, [1.0, 0.0]),
        (lambda z: (z**3).sum(), [1.0, 1.0]),
        (lambda z: torch.exp(-z).sum(), [1.0, 2.0]),
        (lambda z: 0 * z.sum(), [1.0, 2.0]),
    ],
    ids=["saddle", "maximum", "degenerate saddle", "inflection", "at infinity", "constant"],
)
def test_no_point_that_is_no_minimum_converges(
    solver: im.Solver, objective: Callable[..., Any], start: list[float]
) -> None:
    z0 = torch.tensor(start, dtype=D)
    solution = im.minimise(objective, z0, solver=solver, on_failure="accept")
    assert not bool(solution.converged), solution


def test_a_trust_region_leaves_a_saddle_that_a_gradient_cannot_see() -> None:
    # The gradient leads to the saddle at zero; the minima are at (0, ±√2).
    objective = lambda z: z[0] ** 2 - z[1] ** 2 + z[1] ** 4 / 4  # noqa: E731
    solution = im.minimise(objective, torch.tensor([1.0, 0.0], dtype=D))
    assert bool(solution.converged)
    assert solution.value[1].abs().item() == pytest.approx(2**0.5, rel=1e-9)


@pytest.mark.parametrize("solver", SOLVERS[:4], ids=name)
@pytest.mark.parametrize(
    "objective", [lambda z: z.sum(), lambda z: -(z**2).sum()], ids=["linear", "concave"]
)
def test_an_unbounded_objective_is_a_status(
    solver: im.Solver, objective: Callable[..., Any]
) -> None:
    solution = im.minimise(objective, torch.ones(2, dtype=D), solver=solver, on_failure="accept")
    assert im.Status(int(solution.status)).name == "UNBOUNDED"


@pytest.mark.parametrize("solver", SOLVERS[:4], ids=name)
def test_units_of_unknowns_and_objective_change_no_answer(solver: im.Solver) -> None:
    def objective(z: Tensor) -> Tensor:
        return 100 * (z[1] - z[0] ** 2) ** 2 + (1 - z[0]) ** 2

    start = torch.tensor([-1.2, 1.0], dtype=D)
    plain = im.minimise(objective, start, solver=solver)
    scaled = im.minimise(lambda z: 2.0**40 * objective(z * 2.0**20), start / 2.0**20, solver=solver)
    assert bool(plain.converged)
    assert bool(scaled.converged)
    torch.testing.assert_close(scaled.value * 2.0**20, plain.value, rtol=1e-7, atol=0)
    assert int(scaled.steps) == int(plain.steps)


@pytest.mark.parametrize("solver", [im.NewtonCG(), im.LBFGS()], ids=name)
def test_many_unknowns_need_no_matrix(solver: im.Solver) -> None:
    n = 3000
    weight = torch.linspace(1.0, 50.0, n, dtype=D)
    objective = lambda z: (weight * (z - 1) ** 2 / 2 + (z - 1) ** 4).sum()  # noqa: E731
    solution = im.minimise(objective, torch.zeros(n, dtype=D), solver=solver)
    assert bool(solution.converged)
    assert (solution.value - 1).abs().max().item() <= 1e-8


def test_large_saddles_are_found_by_products() -> None:
    n = 2100  # Beyond the size at which Hessians are formed.
    weight = torch.ones(n, dtype=D)
    weight[17] = -1.0
    objective = lambda z: (weight * z**2).sum() + (z**4).sum()  # noqa: E731
    start = torch.zeros(n, dtype=D)
    start[3] = 1.0
    solution = im.minimise(objective, start, on_failure="accept")
    assert im.Status(int(solution.status)).name == "NOT_A_MINIMUM"


def test_verify_finds_the_derivative_correct() -> None:
    report = verify(lambda x: cube_root(x), (X.clone().requires_grad_(),))
    assert report.verdict.name == "CORRECT", str(report)


def test_a_module_may_hold_the_objective() -> None:
    class ArgMin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(2.0, dtype=D))

        def forward(self, x: Tensor) -> Tensor:
            objective = lambda z, x: (0.5 * self.weight * z**2 - x * z).sum()  # noqa: E731
            return im.minimise(objective, torch.zeros_like(x), x).value

    layer = ArgMin()
    layer(X).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.item() == pytest.approx(-X.sum().item() / 4, rel=1e-9)


@pytest.mark.parametrize(
    ("objective", "kind", "words"),
    [
        (lambda z: z, ValueError, r"one number for each system, of shape \(2,\) with batch_dims=1"),
        (lambda z: z.sum(), ValueError, r"got shape \(\)"),
        (lambda z: 1.0, TypeError, "objective as a tensor, got float"),
        (lambda z: z.sum(-1) * 1j, TypeError, "real floating-point objective"),
        (lambda z: z.detach().square().sum(-1), im.MissingDerivativeError, "carries no derivative"),
    ],
)
def test_objectives_that_cannot_be_are_errors(
    objective: Callable[..., Any], kind: type, words: str
) -> None:
    with pytest.raises(kind, match=words):
        im.minimise(objective, torch.ones(2, 3, dtype=D), batch_dims=1)


def test_an_unknown_keyword_names_the_option_that_is_near() -> None:
    with pytest.raises(TypeError, match="did you mean stopping"):
        im.minimise(lambda z: z.sum(), torch.ones(2), stoping=TIGHT)
