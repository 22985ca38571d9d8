"""What the literature says of the classical problems, and what other implementations make of them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from implicitly import problems
from implicitly.problems import TestProblem
from scipy.optimize import root as scipy_root

CLASSICAL = problems.names(tag="classical")


def test_known_facts_of_the_literature_hold() -> None:
    def mean(c: float) -> float:
        (root,) = problems.get("chandrasekhar-h", c=c).roots(50)
        return root.value.mean().item()

    for c in (0.1, 0.5, 0.9, 0.999):
        # Its derivative in c grows like 1/√(1 − c).
        assert mean(c) == pytest.approx(2 / c * (1 - (1 - c) ** 0.5), rel=1e-13)
    # To a double root: half the digits.
    assert mean(1.0) == pytest.approx(2.0, abs=1e-6)

    # The two discretisations have one root, near x(t) = 2/(2 − t) − t − 1 to second order.
    for n in (10, 100):
        (first,) = problems.get("discrete-boundary-value").roots(n)
        t = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
        exact = 2 / (2 - t) - t - 1
        # Largest fourth derivative 48, over 12; the inverse Laplacian is at most 1/8.
        assert (first.value - exact).abs().max().item() <= 48 / 12 / 8 / (n + 1) ** 2

    wood = [root.value.tolist() for root in problems.get("wood").roots()]
    assert wood[0] == [1.0] * 4
    # A minimum, and saddles with one and with two directions down.
    eigenvalues = [_signs(problems.get("wood"), root) for root in wood]
    assert eigenvalues == [[1, 1, 1, 1], [-1, 1, 1, 1], [-1, -1, 1, 1]]


@pytest.mark.parametrize(
    "x", [(1.0, 0.5), (-1.0, 0.5), (-1.0, -0.5), (1.0, -0.5), (0.0, 2.0), (0.0, -2.0), (-1.0, -0.0)]
)
def test_the_helical_angle_is_that_of_the_literature(x: tuple[float, float]) -> None:
    if x[0] == 0:
        turns = 0.25 * np.sign(x[1])
    else:
        turns = np.arctan(x[1] / x[0]) / (2 * np.pi) + (0.5 if x[0] < 0 else 0.0)
    point = torch.tensor([*x, 0.0], dtype=torch.float64)
    value = problems.get("helical-valley").residual(point)[0].item()
    assert value == pytest.approx(-100 * turns, abs=1e-12)


def _signs(problem: TestProblem, z: list[float]) -> list[int]:
    jacobian = torch.func.jacrev(problem.residual)(torch.tensor(z, dtype=torch.float64))
    # The Hessian of Wood's function but for the factor of two equations each.
    hessian = torch.diag(torch.tensor([2.0, 1.0, 2.0, 1.0], dtype=torch.float64)) @ jacobian
    return sorted(torch.linalg.eigvals(hessian).real.sign().int().tolist())


# --- What other implementations make of them: counts known from independent transcriptions --------


def scipy_outcome(problem: TestProblem, method: str, limit: str) -> tuple[bool, bool]:
    """Whether SciPy finds a root, and whether it says so."""

    def residual(x: np.ndarray) -> np.ndarray:
        return problem.residual(torch.from_numpy(x)).numpy()

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        start = problem.start().numpy()
        found = scipy_root(residual, start, method=method, tol=1e-10, options={limit: 10_000})
    return bool(np.abs(residual(found.x)).max() <= 1e-8), bool(found.success)


def test_hybr_solves_the_18_that_it_is_known_to_solve() -> None:
    solved = {name: scipy_outcome(problems.get(name), "hybr", "maxfev")[0] for name in CLASSICAL}
    assert [name for name in CLASSICAL if not solved[name]] == [
        "generalised-rosenbrock", "trigonometric", "matrix-square-root-2",
        "matrix-square-root-3", "freudenstein-roth",
    ]  # fmt: skip


def test_lm_stops_at_minima_on_the_three_where_it_is_known_to() -> None:
    outcomes = {name: scipy_outcome(problems.get(name), "lm", "maxiter") for name in CLASSICAL}
    assert [name for name, (solved, success) in outcomes.items() if success and not solved] == [
        "brown-almost-linear", "trigonometric", "freudenstein-roth",
    ]  # fmt: skip
    assert sum(solved for solved, _ in outcomes.values()) >= 19


def newton_solves(problem: TestProblem) -> bool:
    z = problem.start()
    for _ in range(1000):
        value = problem.residual(z)
        if value.abs().max() <= 1e-8:
            return True
        jacobian = torch.func.jacrev(problem.residual)(z)
        z = z - torch.linalg.lstsq(jacobian, value.unsqueeze(1), driver="gelsd").solution[:, 0]
    return False


def test_newton_with_least_squares_steps_solves_all_23() -> None:
    assert [name for name in CLASSICAL if not newton_solves(problems.get(name))] == []
