"""Problems with curves: their folds and branch points, against other ways to find them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from curve_problems import curve_problem
from implicitly import problems
from scipy.optimize import minimize_scalar


def test_the_folds_of_the_reactor_are_the_extremes_of_its_explicit_parameter() -> None:
    problem = curve_problem("stirred-reactor", heat=11.0, activation=25.0)

    def damkohler(z: float) -> float:
        return float(z / ((1 - z) * np.exp(11.0 * z / (1 + 11.0 * z / 25.0))))

    low = minimize_scalar(lambda z: -damkohler(z), bounds=(0.02, 0.4), method="bounded")
    high = minimize_scalar(damkohler, bounds=(0.5, 0.99), method="bounded")
    assert problem.folds() == pytest.approx((-low.fun, high.fun), rel=1e-8)
    assert curve_problem("stirred-reactor", heat=3.0).folds() == ()


@pytest.mark.parametrize(("n", "expected"), [(1, 8 / math.e), (2, 9 / math.e)])
def test_bratus_fold_on_one_and_two_nodes_is_known_by_hand(n: int, expected: float) -> None:
    # One node: 2 u = λ eᵘ / 4. Two equal nodes: u = λ eᵘ / 9. Both at u = 1.
    assert curve_problem("bratu-line").folds(n) == pytest.approx((expected,), rel=1e-12)


def test_bratus_fold_is_that_of_the_literature_as_the_grid_is_refined() -> None:
    coarse, fine = (curve_problem("bratu-line").folds(n)[0] for n in (499, 999))
    # An error of c h² + d h⁴.
    assert (4 * fine - coarse) / 3 == pytest.approx(3.513830719, abs=1e-9)


def test_bratus_problem_has_no_root_beyond_its_fold() -> None:
    assert curve_problem("bratu-line", strength=3.6).roots() == ()
    assert len(curve_problem("bratu-line", strength=3.51).roots()) == 2


def test_the_rod_buckles_where_the_jacobian_of_the_straight_one_is_singular() -> None:
    problem, n = curve_problem("elastic-rod"), 7
    straight = torch.zeros(n, dtype=torch.float64)
    for load in problem.branch_points(n):
        jacobian = torch.func.jacrev(problem.function)(straight, load)
        assert torch.linalg.svdvals(jacobian)[-1].item() < 1e-14
    assert len(curve_problem("elastic-rod", load=5.0).roots()) == 1


def test_there_are_three_problems_with_curves() -> None:
    assert problems.names(tag="curve") == ["stirred-reactor", "bratu-line", "elastic-rod"]
