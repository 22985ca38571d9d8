"""Gradients of large equations whose unknowns have units that differ by powers of ten."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from implicitly import Anderson, NewtonKrylov, SolveError, SparseLU, fixed_point, root
from implicitly.solvers import Polyalgorithm, Problem, Status, Stopping, solve
from implicitly.solvers.interface.derived_at import DerivedAt
from torch import Tensor

DOUBLE = torch.float64


def scales(n: int, span: float, kind: str, generator: torch.Generator) -> Tensor:
    """Units of the unknowns, over `10^±span`: at random, or two sorts."""
    if kind == "random":
        return 10 ** (span * (2 * torch.rand(n, generator=generator, dtype=DOUBLE) - 1))
    return 10 ** (span * torch.where(torch.arange(n) < n // 2, -1.0, 1.0).double())


def coupling(n: int, kind: str, generator: torch.Generator) -> Tensor:
    """Two blocks that hardly know of each other, of which one converges fast; or neighbours alone."""
    full = torch.randn(n, n, generator=generator, dtype=DOUBLE) / n**0.5
    if kind == "random":
        return 0.3 * (full.triu(-1) - full.triu(2) - torch.diag(full.diagonal())).sign()
    weights = torch.full((n, n), 1e-3, dtype=DOUBLE)
    weights[: n // 2, : n // 2], weights[n // 2 :, n // 2 :] = 0.02, 0.6
    return weights * full


def worst(
    form: str, n: int, kind: str, span: float, weight_of: Callable[[Tensor, Tensor], Tensor]
) -> float:
    """The largest error of a gradient, relative to each entry's own terms, by dense factors in like units."""
    generator = torch.Generator().manual_seed(n)
    unit, matrix = scales(n, span, kind, generator), coupling(n, kind, generator)
    # In two sorts every equation has the unit of its unknown: norms see one sort alone.
    rows = scales(n, span, "random", generator) if kind == "random" else 1 / unit
    x = torch.randn(n, generator=generator, dtype=DOUBLE).requires_grad_()
    weight = weight_of(torch.randn(n, generator=generator, dtype=DOUBLE), unit)

    def residual(z: Tensor, x: Tensor) -> Tensor:
        y = z / unit
        return rows * (y + matrix @ torch.tanh(y) - x)

    def iteration(z: Tensor, x: Tensor) -> Tensor:
        return unit * (x - matrix @ torch.tanh(z / unit))

    call, function = (root, residual) if form == "root" else (fixed_point, iteration)
    solution = call(function, torch.zeros_like(x.detach()), x)
    (gradient,) = torch.autograd.grad(weight @ solution.value, x)
    slope = 1 - torch.tanh(solution.value.detach() / unit) ** 2
    inner = torch.eye(n, dtype=DOUBLE) + matrix * slope
    inverse = torch.linalg.inv(inner.mT)
    expected, size = inverse @ (unit * weight), inverse.abs() @ (unit * weight).abs()
    return float(((gradient - expected).abs() / size).max())


@pytest.mark.parametrize("kind", ["random", "two sorts"])
@pytest.mark.parametrize(("form", "n"), [("root", 600), ("fixed_point", 100)])
@pytest.mark.parametrize(
    "weight_of",
    [lambda c, unit: c / unit, lambda c, unit: c, lambda c, unit: c * unit],
    ids=["loss without units", "sum", "squares"],
)
def test_gradients_are_right_in_every_unit(
    form: str, n: int, kind: str, weight_of: Callable[[Tensor, Tensor], Tensor]
) -> None:
    # Each equation is met to 1e-7 of its terms, and the inverse of the matrix in like units is below 5.
    assert worst(form, n, kind, 6.0, weight_of) <= 5e-7


def adjoint_problem(matrix: Tensor, size: Tensor, right: Tensor) -> Problem:
    """The adjoint `Jᵀu + b = 0` at a solution of these sizes."""
    return Problem(
        lambda u: u @ matrix + right,
        form="root",
        operator=lambda u: u @ matrix,
        transpose=lambda v: v @ matrix.mT,
        derived_at=DerivedAt(size, transposed=True),
    )


def test_like_units_cost_no_product() -> None:
    generator = torch.Generator().manual_seed(0)
    n = 600
    matrix = torch.eye(n, dtype=DOUBLE) + coupling(n, "two sorts", generator)
    size = torch.randn(1, n, generator=generator, dtype=DOUBLE).abs()
    right, zero = torch.ones(1, n, dtype=DOUBLE), torch.zeros(1, n, dtype=DOUBLE)
    counts = []
    for at in (DerivedAt(size, transposed=True), None):
        problem = adjoint_problem(matrix, size, right)
        problem.derived_at = at
        solve(problem, Polyalgorithm(remember=False), zero)
        counts.append(problem.counts.evaluations + problem.counts.products)
    assert counts[0] == counts[1]


def test_an_equation_that_is_missed_is_a_failure_that_says_so() -> None:
    generator = torch.Generator().manual_seed(0)
    n = 600
    size = scales(n, 6.0, "two sorts", generator).unsqueeze(0)
    matrix = (torch.eye(n, dtype=DOUBLE) + coupling(n, "two sorts", generator)) / size
    right, zero = 1 / size, torch.zeros(1, n, dtype=DOUBLE)
    few = Stopping(max_steps=3)
    result = solve(adjoint_problem(matrix, size, right), Polyalgorithm(remember=False), zero, few)
    assert result.status[0] != Status.CONVERGED
    assert "of its terms" in result.reasons[0]


def test_a_failed_adjoint_in_mixed_units_raises() -> None:
    # A matrix that is singular in one of the two sorts.
    n = 600
    unit = scales(n, 6.0, "two sorts", torch.Generator().manual_seed(0))
    x = torch.ones(n, dtype=DOUBLE, requires_grad=True)

    def iteration(z: Tensor, x: Tensor) -> Tensor:
        y = z / unit
        return unit * torch.cat((0.5 * y[: n // 2] + x[: n // 2], y[n // 2 :]))

    start = unit.clone()
    solution = fixed_point(iteration, start, x, solver=Anderson())
    loss = (solution.value / unit).sum()
    with pytest.raises(SolveError):
        torch.autograd.grad(loss, x)


def test_a_sparse_pattern_serves_mixed_units_beyond_dense_factors() -> None:
    n = 5000
    generator = torch.Generator().manual_seed(1)
    unit = scales(n, 6.0, "random", generator)
    x = torch.randn(n, generator=generator, dtype=DOUBLE).requires_grad_()

    def residual(z: Tensor, x: Tensor) -> Tensor:
        y = z / unit
        return y + 0.3 * torch.tanh(y.roll(1)) - 0.2 * y.roll(-2) - x

    solver = NewtonKrylov(linear_solver=SparseLU())
    solution = root(residual, torch.zeros(n, dtype=DOUBLE), x, solver=solver)
    (gradient,) = torch.autograd.grad((solution.value / unit).sum(), x)
    # In like units: u = M⁻ᵀ 1 by the series of the contraction.
    slope = 0.3 * (1 - torch.tanh(solution.value.detach() / unit) ** 2)
    expected = torch.ones(n, dtype=DOUBLE)
    for _ in range(100):
        expected = 1 - slope * expected.roll(-1) + 0.2 * expected.roll(2)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)
