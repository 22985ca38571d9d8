"""SciPy's methods take through the adapter the steps that they take alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.optimize._nonlin as nonlin
import scipy.optimize._root as scipy_root
import torch
from implicitly import (
    ScipyRoot,
    ScipyRootScalar,
    Solution,
    Status,
    Stopping,
    problems,
    root,
)
from implicitly.problems import TestProblem
from oracle import Array
from torch import Tensor

from .references import as_float64

METHODS = (
    "hybr", "lm", "broyden1", "broyden2", "anderson", "linearmixing", "diagbroyden",
    "excitingmixing", "krylov", "df-sane",
)  # fmt: skip
every_method = pytest.mark.parametrize("method", METHODS)
FEW_STEPS = {"hybr": {"maxfev": 40}, "lm": {"maxiter": 40}, "df-sane": {"maxfev": 25}}
# Tolerances of its own, so that SciPy and not the adapter ends the run.
OWN = {"hybr": {"xtol": 1e-9}, "lm": {"xtol": 1e-9}, "df-sane": {"fatol": 1e-9}}


class OutOfEvaluationsError(Exception):
    pass


class GoalMetError(Exception):
    pass


def alone(
    problem: TestProblem,
    method: str,
    options: dict[str, Any],
    limit: int = 10**6,
    goal: float = -1.0,
) -> tuple[list[Array], Array | None]:
    """The points that SciPy evaluates by itself, and its answer or the first that meets the goal."""
    points: list[Array] = []

    def function(x: Array) -> Array:
        if len(points) >= limit:
            raise OutOfEvaluationsError
        points.append(np.array(x))
        value = problem.residual(torch.from_numpy(points[-1])).numpy()
        if np.linalg.norm(value) <= goal:
            raise GoalMetError
        return value

    start = problem.start().numpy()
    with np.errstate(all="ignore"):
        try:
            result = scipy.optimize.root(function, start, method=method, options=options)
        except GoalMetError:
            return points, points[-1]
        except (OutOfEvaluationsError, ArithmeticError, ValueError):
            return points, None
    return points, result.x


def through(
    problem: TestProblem, solver: ScipyRoot, stopping: Stopping | None = None
) -> tuple[list[Array], Solution]:
    """The points that are evaluated through the adapter, and the solution."""
    points: list[Array] = []

    def function(z: Tensor) -> Tensor:
        points.append(as_float64(z).copy())
        return problem.residual(z)

    solution = root(
        function, problem.start(), solver=solver, stopping=stopping, on_failure="accept"
    )
    return points, solution


def without_repeats(points: list[Array]) -> list[bytes]:
    kept = [points[0].tobytes()]
    for point in points[1:]:
        if point.tobytes() != kept[-1]:
            kept.append(point.tobytes())
    return kept


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@every_method
def test_the_points_that_a_method_evaluates_are_bit_for_bit_those_of_scipy(method: str) -> None:
    options = {
        **FEW_STEPS.get(method, {"maxiter": 6}), **OWN.get(method, {"fatol": 1e-9}),
    }  # fmt: skip
    for problem in problems.all(tag="classical"):
        expected, answer = alone(problem, method, options)
        solver = ScipyRoot(method, options=options, jacobian=None if method not in OWN else False)
        if method == "df-sane":
            solver = ScipyRoot(method, options=options)
        points, solution = through(problem, solver, Stopping(rtol=1e-6, atol=0.0))
        ours, theirs = without_repeats(points), without_repeats(expected)
        # Two more at the most: SciPy's answer, if not its last point, and the best point of all.
        assert ours[: len(theirs)] == theirs
        assert len(ours) <= len(theirs) + 2
        if bool(solution.converged):
            assert answer is not None
            assert as_float64(solution.value).tobytes() == answer.tobytes()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@every_method
def test_without_tolerances_the_method_goes_the_same_way_until_the_goal_is_met(method: str) -> None:
    problem = problems.get("broyden-tridiagonal")
    stopping = Stopping(rtol=1e-5, atol=0.0, max_evaluations=300)
    solver = ScipyRoot(method, jacobian=False if method in ("hybr", "lm") else None)
    points, solution = through(problem, solver, stopping)
    tight = {"hybr": {"xtol": 0.0}, "lm": dict.fromkeys(("xtol", "ftol", "gtol"), 0.0),
             "df-sane": {"ftol": 0.0, "fatol": 0.0}}  # fmt: skip
    options = {**tight.get(method, {"fatol": 0.0})}
    expected, _ = alone(problem, method, options, limit=300)
    ours, theirs = without_repeats(points), without_repeats(expected)
    made = len(ours) if bool(solution.converged) else len(ours) - 1
    assert ours[:made] == theirs[:made]
    first = np.linalg.norm(as_float64(problem.residual(problem.start())))
    if bool(solution.converged):
        last = np.linalg.norm(as_float64(problem.residual(solution.value)))
        assert last <= 1e-5 * first
        # No point before it would have done; it is evaluated for its Jacobian too, and at the end.
        for point in points[:-3]:
            residual = problem.residual(torch.from_numpy(point)).numpy()
            assert np.linalg.norm(residual) > 0.98e-5 * first


# How many of the 23 classical problems each solves: ∞-norm 1e-8, 10,000 evaluations, float64.
SOLVED = {
    "hybr": 18, "lm": 20, "broyden1": 17, "broyden2": 17, "anderson": 18, "linearmixing": 1,
    "diagbroyden": 9, "excitingmixing": 2, "krylov": 16, "df-sane": 18,
}  # fmt: skip


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@every_method
def test_a_method_solves_of_the_classical_problems_what_it_solves_alone(method: str) -> None:
    ours, theirs = [], []
    far = {"hybr": {"maxfev": 10**5, "xtol": 0.0},
           "lm": {"maxiter": 10**5, "xtol": 0.0, "ftol": 0.0, "gtol": 0.0},
           "df-sane": {"maxfev": 10**5, "ftol": 0.0, "fatol": 0.0}}  # fmt: skip
    options = far.get(method, {"maxiter": 10**5, "fatol": 0.0})
    solver = ScipyRoot(method, jacobian=False if method in ("hybr", "lm") else None)
    for problem in problems.all(tag="classical"):
        n = problem.size()
        stopping = Stopping(rtol=0.0, atol=1e-8 / n**0.5, max_evaluations=10_000)
        _, solution = through(problem, solver, stopping)
        if problem.residual(solution.value).abs().max() <= 1e-8:
            ours.append(problem.name)
        _, answer = alone(problem, method, options, limit=9_998, goal=0.99e-8)
        if answer is None:
            continue
        if problem.residual(torch.from_numpy(answer)).abs().max() <= 1e-8:
            theirs.append(problem.name)
    assert ours == theirs
    # The rounding of a machine's libraries decides one of them.
    assert abs(len(ours) - SOLVED[method]) <= 1


@pytest.mark.parametrize("method", ["hybr", "lm"])
def test_the_exact_jacobian_is_handed_over(method: str) -> None:
    problem = problems.get("broyden-banded")
    exact = through(problem, ScipyRoot(method))[1]
    differences = through(problem, ScipyRoot(method, jacobian=False))[1]
    assert bool(exact.converged)
    assert bool(differences.converged)
    # Both have their answer examined by one Jacobian.
    assert exact.counts.jvps > 10 == differences.counts.jvps
    # MINPACK evaluates n points for a Jacobian by differences.
    assert exact.evaluations < differences.evaluations

    def function(x: Array) -> Array:
        return problem.residual(torch.from_numpy(x)).numpy()

    def jacobian(x: Array) -> Array:
        return torch.func.jacrev(problem.residual)(torch.from_numpy(x)).numpy()

    result = scipy.optimize.root(function, problem.start().numpy(), jac=jacobian, method=method)
    # The Jacobian at the root is near 7 times the identity.
    np.testing.assert_allclose(as_float64(exact.value), result.x, rtol=0, atol=1e-8)


def test_a_jacobian_of_float32_is_found_by_differences_of_its_size() -> None:
    def F(z: Tensor) -> Tensor:
        return torch.stack([z[0] ** 2 + z[1] ** 2 - 4, z[0] - z[1]])

    z0 = torch.tensor([1.0, 3.0])
    for solver in (
        ScipyRoot("hybr", jacobian=False), ScipyRoot("lm", jacobian=False), ScipyRoot("krylov"),
    ):  # fmt: skip
        solution = root(F, z0, solver=solver)
        assert solution.evaluations < 60
        torch.testing.assert_close(solution.value, torch.full((2,), 2.0).sqrt())


# --- Options ------------------------------------------------------------------------------------

PRIVATE: dict[str, Callable[..., Any]] = {
    "hybr": scipy_root._root_hybr, "lm": scipy_root._root_leastsq,
    "df-sane": scipy_root._root_df_sane, "broyden1": scipy_root._root_nonlin_solve,
}  # fmt: skip
NOT_OPTIONS = {
    "func", "fun", "x0", "args", "jac", "col_deriv", "callback", "unknown_options", "_callback",
    "_method",
}  # fmt: skip


@pytest.mark.parametrize("method", PRIVATE)
def test_the_options_are_those_that_the_method_of_this_scipy_has(method: str) -> None:
    expected = set(inspect.signature(PRIVATE[method]).parameters) - NOT_OPTIONS
    with pytest.raises(TypeError, match="has no option 'nonsense'") as e:
        ScipyRoot(method, options={"nonsense": 1})
    listed = str(e.value).split("Its options: ")[1].split(", ")
    assert set(listed) == expected


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("broyden1", nonlin.BroydenFirst), ("broyden2", nonlin.BroydenSecond),
        ("anderson", nonlin.Anderson), ("linearmixing", nonlin.LinearMixing),
        ("diagbroyden", nonlin.DiagBroyden), ("excitingmixing", nonlin.ExcitingMixing),
        ("krylov", nonlin.KrylovJacobian),
    ],
)  # fmt: skip
def test_the_options_of_jacobians_are_those_of_this_scipy(method: str, kind: type) -> None:
    expected = set(inspect.signature(kind).parameters) - {"kw"}
    with pytest.raises(TypeError, match="jac_options of ScipyRoot.*has no option 'nonsense'") as e:
        ScipyRoot(method, options={"jac_options": {"nonsense": 1}})
    listed = str(e.value).split("Its options: ")[1].split(", ")
    assert {
        name for name in listed if name in expected or not name.startswith("inner_")
    } == expected


def test_wrong_options_say_what_is_valid() -> None:
    with pytest.raises(ValueError, match="'hybr', 'lm', .*'df-sane', got 'hybrid'"):
        ScipyRoot("hybrid")
    with pytest.raises(TypeError, match="did you mean 'maxfev'"):
        ScipyRoot("hybr", options={"maxfevs": 3})
    with pytest.raises(
        ValueError, match="line_search must be one of 'cruz', 'cheng', got 'armijo'"
    ):
        ScipyRoot("df-sane", options={"line_search": "armijo"})
    with pytest.raises(ValueError, match="jacobian=True: 'broyden1' takes no Jacobian"):
        ScipyRoot("broyden1", jacobian=True)
    with pytest.raises(ValueError, match=r"jac_options\['method'\] must be one of 'lgmres'"):
        ScipyRoot("krylov", options={"jac_options": {"method": "cg"}})
    ScipyRoot("krylov", options={"jac_options": {"method": "gmres", "inner_rtol": 1e-3}})
    with pytest.raises(TypeError, match="must be a dictionary"):
        ScipyRoot("hybr", options=3)  # type: ignore[arg-type]


def test_options_of_the_user_win_over_the_limits_of_the_call() -> None:
    problem = problems.get("broyden-tridiagonal")
    solver = ScipyRoot("broyden1", options={"maxiter": 3})
    solution = through(problem, solver, Stopping(max_steps=50))[1]
    assert solution.status.item() == Status.MAX_STEPS
    assert solution.steps.item() == 3


def test_an_impossible_value_of_an_option_is_an_error_and_no_status() -> None:
    with pytest.raises(ValueError, match="xtol"):
        root(
            lambda z: z - 1, torch.zeros(1), batch_dims=1, on_failure="accept",
            solver=ScipyRootScalar("brentq", lower=0.0, upper=2.0, options={"xtol": -1.0}),
        )  # fmt: skip


def test_a_loose_tolerance_of_scipy_is_not_convergence() -> None:
    problem = problems.get("broyden-tridiagonal")
    solution = through(problem, ScipyRoot("krylov", options={"fatol": 1e-2}))[1]
    assert solution.status.item() == Status.STALLED
    assert 1e-10 < solution.residual_norm.item() <= 1e-2


@pytest.mark.filterwarnings("error")
def test_success_on_a_point_that_is_no_root_is_not_believed() -> None:
    # lm finds a local minimum of ‖F‖ there, and says that it has succeeded.
    problem = problems.get("freudenstein-roth")
    solution = through(problem, ScipyRoot("lm", options={"xtol": 1e-10}))[1]
    assert not bool(solution.converged)
    assert solution.residual_norm.item() > 1
