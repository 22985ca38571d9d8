"""The collection of Moré, Garbow & Hillstrom: minima of the literature, and how many of them are found."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import implicitly as im
import numpy as np
import pytest
import torch
from implicitly.problems import least_squares as collection
from implicitly.problems.least_squares import LeastSquaresProblem
from scipy.optimize import least_squares as scipy_least_squares
from torch import Tensor

D = torch.float64
NAMES = collection.names()
# The minima are tabulated to six digits.
TABULATED = 2e-5
# A sum of squares that is zero, beside the one at the standard start.
ZERO = 1e-12


def sum_of_squares(problem: LeastSquaresProblem, z: Tensor) -> float:
    return problem.residual(z).square().sum().item()


def is_minimum(problem: LeastSquaresProblem, value: float) -> bool:
    first = sum_of_squares(problem, replace(problem, start_scale=1.0).start())
    near = [TABULATED * m if m else ZERO * max(first, 1e-3) for m in problem.minima]
    return any(abs(value - m) <= away for m, away in zip(problem.minima, near, strict=True))


def scipy_value(problem: LeastSquaresProblem, method: str, limit: int) -> float:
    def residual(z: np.ndarray) -> np.ndarray:
        return problem.residual(torch.tensor(z)).numpy()

    def jacobian(z: np.ndarray) -> np.ndarray:
        return torch.func.jacrev(problem.residual)(torch.tensor(z)).numpy()

    tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12, "max_nfev": limit}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return 2 * scipy_least_squares(
                residual, problem.start().numpy(), jacobian, method=method, x_scale="jac", **tight
            ).cost  # fmt: skip
        except ValueError:  # The start, or an iterate, is not finite.
            return float("nan")


def test_the_collection_is_complete_and_in_order() -> None:
    assert [problem.number for problem in collection.all()] == list(range(1, 36))
    assert collection.get("wood", 10.0).start().tolist() == [-30.0, -10.0, -30.0, -10.0]
    with pytest.raises(ValueError, match="'rosenbrok'; the nearest is 'rosenbrock'"):
        collection.get("rosenbrok")
    with pytest.raises(ValueError, match="start_scale must be a number > 0"):
        collection.get("wood", 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_known_points_have_the_least_sum_of_squares(name: str) -> None:
    problem = collection.get(name)
    if problem.at is None:
        pytest.skip("the literature has the value alone")
    at = torch.tensor(problem.at, dtype=D)
    assert is_minimum(problem, sum_of_squares(problem, at))
    gradient = torch.func.grad(lambda z: problem.residual(z).square().sum())(at)
    start = torch.func.grad(lambda z: problem.residual(z).square().sum())(problem.start())
    assert gradient.abs().max() <= 1e-9 * start.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_every_problem_is_solved_from_its_start_to_a_minimum_of_the_literature(name: str) -> None:
    problem = collection.get(name)
    solution = im.least_squares(problem.residual, problem.start())
    assert is_minimum(problem, sum_of_squares(problem, solution.value))
    # SciPy, which stops by rules of its own, finds one of them as well: the data are those of the table.
    assert is_minimum(problem, scipy_value(problem, "lm", 5000))


UNIQUE = [p.name for p in collection.all() if p.unique]
MOST = [pytest.param(name, marks=pytest.mark.long) for name in UNIQUE[4:]]


@pytest.mark.parametrize("name", [*UNIQUE[:4], *MOST])
def test_derivatives_are_differences_of_polished_minimisers(name: str) -> None:
    problem = collection.get(name)
    z = im.least_squares(problem.residual, problem.start()).value

    def objective(z: Tensor, shift: Tensor) -> Tensor:
        return 0.5 * problem.residual(z, shift).square().sum()

    def polished(z: Tensor, shift: float) -> Tensor:
        at = torch.tensor(shift, dtype=D)
        for _ in range(8):
            gradient = torch.func.grad(objective)(z, at)
            hessian = torch.func.hessian(objective)(z, at)
            # In units of its diagonal: without them the condition is up to 1e24.
            unit = hessian.diagonal().abs().sqrt()
            z = z - torch.linalg.solve(hessian / (unit * unit[:, None]), gradient / unit) / unit
        return z

    mine = torch.func.jacfwd(lambda s: im.least_squares(problem.residual, z, s).value)(
        torch.zeros((), dtype=D)
    )
    errors = []
    for h in (1e-3, 1e-4, 1e-5, 1e-6):
        a, b, c, d = (polished(z + k * h * mine, k * h) for k in (-2, -1, 1, 2))
        difference = (a - 8 * b + 8 * c - d) / (12 * h)
        errors.append(((difference - mine).abs().max() / mine.abs().max()).item())
    # The best step: rounding of ill-conditioned minimisers and the curvature of others allow no single one.
    assert min(errors) <= 1e-6


@pytest.mark.parametrize("name", ["linear-rank-1", "linear-rank-1-with-zeros"])
def test_a_deficient_rank_has_no_derivative_but_one_of_minimum_norm(name: str) -> None:
    problem = collection.get(name)

    def minimiser(shift: Tensor, **options: Any) -> Tensor:
        return im.least_squares(problem.residual, problem.start(), shift, **options).value

    zero = torch.zeros((), dtype=D)
    with pytest.raises(im.SolveError, match="gradient=MinimumNorm"):
        torch.func.jacrev(minimiser)(zero)
    J = torch.func.jacrev(problem.residual)(problem.start())
    expected = torch.linalg.pinv(J) @ torch.cos(torch.arange(1, len(J) + 1, dtype=D))
    mine = torch.func.jacrev(lambda s: minimiser(s, gradient=im.MinimumNorm()))(zero)
    torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["box", "jennrich-sampson"])
def test_a_run_to_where_a_derivative_underflows_is_no_minimum(name: str) -> None:
    # From ten times its start an unknown runs off to where its exponential, exp(-2.8e4), is rounded to zero.
    problem = collection.get(name, 10.0)
    solution = im.least_squares(problem.residual, problem.start(), on_failure="accept")
    assert solution.value.abs().max() > 1e5
    assert not bool(solution.converged)


@pytest.mark.long
@pytest.mark.parametrize("start_scale", [10.0, 100.0])
def test_as_many_minima_are_found_from_distant_starts_as_by_the_best_method_of_scipy(
    start_scale: float,
) -> None:
    found: dict[str, int] = dict.fromkeys(("mine", "lm", "trf", "dogbox"), 0)
    for problem in collection.all(start_scale):
        solution = im.least_squares(problem.residual, problem.start(), on_failure="accept")
        found["mine"] += is_minimum(problem, sum_of_squares(problem, solution.value))
        for method in ("lm", "trf", "dogbox"):
            found[method] += is_minimum(problem, scipy_value(problem, method, 5000))
    mine = found.pop("mine")
    assert mine >= max(found.values()), (mine, found)
