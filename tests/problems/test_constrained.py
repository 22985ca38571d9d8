"""Problems with constraints: known solutions against their functions, SciPy and the package's own call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from implicitly.problems import constrained
from implicitly.problems.constrained import ConstrainedProblem
from scipy.optimize import minimize

NAMES = constrained.names()


def tolerance(problem: ConstrainedProblem) -> float:
    """Digits of the literature, or rounding of solutions of well-conditioned problems."""
    return 10.0 ** -min(problem.digits - 1, 11)


@pytest.mark.parametrize("name", NAMES)
def test_the_known_solution_meets_the_constraints_and_has_the_known_value(name: str) -> None:
    problem = constrained.get(name)
    z, near = problem.known(), 100 * 10.0**-problem.digits
    scale = max(1.0, abs(problem.value))
    assert abs(float(problem.objective(z)) - problem.value) <= 100 * near * scale
    if problem.equalities is not None:
        assert problem.equalities(z).abs().max() <= 100 * near
    if problem.inequalities is not None:
        assert problem.inequalities(z).max() <= 1000 * near


def scipy_form(problem: ConstrainedProblem) -> dict[str, Any]:
    def array(function: Any, sign: float = 1.0) -> Any:
        return lambda z: sign * function(torch.from_numpy(np.asarray(z))).numpy()

    rows = []
    if problem.equalities is not None:
        rows.append({"type": "eq", "fun": array(problem.equalities)})
    if problem.inequalities is not None:
        rows.append({"type": "ineq", "fun": array(problem.inequalities, -1.0)})
    bounds = problem.bounds()
    pairs = None
    if bounds is not None:
        sides = [[None] * problem.n if side is None else side.tolist() for side in bounds]
        pairs = list(zip(*sides, strict=True))
    return {"fun": array(problem.objective), "constraints": rows, "bounds": pairs}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("method", "accuracy"), [("SLSQP", 2e-4), ("trust-constr", 5e-3)])
@pytest.mark.filterwarnings("ignore")
def test_scipy_finds_no_lower_value(name: str, method: str, accuracy: float) -> None:
    problem = constrained.get(name)
    start = problem.known().numpy() + 0.01  # Its own convergence from afar is not the question.
    options = {"maxiter": 300}
    found = minimize(x0=start, method=method, options=options, **scipy_form(problem))
    # Differences limit SciPy, and by default a barrier of 8e-4 for each inequality does so too.
    assert abs(found.fun - problem.value) <= accuracy * max(1.0, abs(problem.value))


@pytest.mark.parametrize("name", NAMES)
def test_the_minimum_is_found_from_the_standard_start(name: str) -> None:
    problem = constrained.get(name)
    solution = problem.solve()
    torch.testing.assert_close(
        solution.value.z, problem.known(), rtol=tolerance(problem), atol=tolerance(problem)
    )


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="hock-schittkowski-71"):
        constrained.get("hock-schittkowski71")
