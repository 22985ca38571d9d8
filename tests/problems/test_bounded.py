"""Problems with bounds: their solutions meet the conditions, and are found from the plain start."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import implicitly as im
import numpy as np
import pytest
import scipy.optimize
import torch
from implicitly.problems import bounded
from implicitly.problems.bounded import BoundedProblem
from implicitly.problems.bounded.equations import carbonate_phosphate
from torch import Tensor

D = torch.float64
NAMES = bounded.names()
WITH_SCIPY = [p.name for p in bounded.all() if p.kind in ("least_squares", "minimise")]


def condition(problem: BoundedProblem, z: Tensor) -> Tensor:
    """`F` or the gradient of the objective."""
    if problem.kind == "minimise":
        return torch.func.grad(problem.function)(z)
    if problem.kind == "least_squares":
        return torch.func.grad(lambda z: 0.5 * problem.function(z).square().sum())(z)
    return problem.function(z)


def terms(problem: BoundedProblem, z: Tensor) -> Tensor:
    """The size of the terms of each condition: those of its derivative and its value at the start."""
    jacobian = torch.func.jacrev(lambda z: condition(problem, z))(z)
    return jacobian.abs() @ z.abs() + condition(problem, problem.start()).abs() * 1e-3


def distance(problem: BoundedProblem, z: Tensor) -> float:
    """The largest relative error of an unknown; absolute where it is zero."""
    known = problem.known(z.dtype)
    return ((z - known).abs() / torch.where(known != 0, known.abs(), 1.0)).max().item()


def watched(problem: BoundedProblem) -> BoundedProblem:
    """The problem with a function that asserts that it is evaluated between the bounds."""
    lower, upper = problem.bounds()

    def function(z: Tensor) -> Tensor:
        plain = z.detach()
        while torch._C._functorch.is_functorch_wrapped_tensor(plain):
            plain = torch._C._functorch.get_unwrapped(plain)
        assert bool((plain >= lower.to(z.dtype)).all())
        assert bool((plain <= upper.to(z.dtype)).all())
        return problem.function(z)

    return replace(problem, function=function)


def test_problems_are_found_by_name() -> None:
    assert len(NAMES) >= 12
    with pytest.raises(ValueError, match="'carbonate'; the nearest is"):
        bounded.get("carbonate")
    for problem in bounded.all():
        lower, upper = problem.bounds()
        for point in (problem.start(), problem.known()):
            assert bool(((point >= lower) & (point <= upper)).all())


@pytest.mark.parametrize("name", NAMES)
def test_known_solutions_meet_the_conditions_to_rounding(name: str) -> None:
    problem = bounded.get(name)
    z = problem.known()
    lower, upper = problem.bounds()
    F, noise = condition(problem, z), 64 * 2.0**-52 * terms(problem, z)
    # A condition that is to vanish does so to rounding; on a bound it may push outwards.
    pushes_down, pushes_up = (z == lower) & (F > 0), (z == upper) & (F < 0)
    if problem.kind == "root":
        pushes_down = pushes_up = torch.zeros_like(z, dtype=torch.bool)
    assert bool((pushes_down | pushes_up | (F.abs() <= noise)).all())
    if problem.kind in ("minimise", "least_squares"):
        free = ~(pushes_down | pushes_up)
        hessian = torch.func.jacrev(lambda z: condition(problem, z))(z)[free][:, free]
        assert bool((torch.linalg.eigvalsh(hessian) > 0).all())


@pytest.mark.parametrize("dtype", [D, torch.float32], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_solution_is_found_from_the_plain_start_and_between_the_bounds(
    name: str, dtype: torch.dtype
) -> None:
    problem = bounded.get(name)
    solution = watched(problem).solve(problem.start(dtype))
    # The errors that are accepted by default.
    assert distance(problem, solution.value) <= (1e-8 if dtype == D else 1e-4)


def test_concentrations_over_sixteen_orders_of_magnitude_are_found_from_any_power_of_ten() -> None:
    problem = bounded.get("carbonate-phosphate")
    sizes = problem.known()
    assert sizes.max() / sizes.min() > 1e14
    for power in (-8, -4, 0, 2, 4):
        solution = problem.solve(torch.full((9,), 10.0**power, dtype=D))
        assert distance(problem, solution.value) <= 1e-8


@pytest.mark.parametrize("dtype", [D, torch.float32], ids=str)
@pytest.mark.parametrize("power", [-8, -5, -1, 3])
def test_concentrations_in_a_base_are_found_where_rounding_hides_the_small_ones(
    dtype: torch.dtype, power: int
) -> None:
    def F(z: Tensor) -> Tensor:
        return carbonate_phosphate(z, carbon=1e-5, phosphorus=1e-9, chloride=-1e-2)

    solution = im.root(F, torch.full((9,), 10.0**power, dtype=dtype), bounds=(0.0, None))
    # Sodium is balanced by hydroxide and carbonate, so that the mass-action laws give all of the others.
    h = solution.value[0].double().item()
    fraction = h**2 + 4.45e-7 * h + 4.45e-7 * 4.69e-11
    carbonate = 1e-5 * 4.45e-7 * 4.69e-11 / fraction
    assert solution.value[4].item() == pytest.approx(carbonate, rel=1e-7 if dtype == D else 1e-4)
    charge = h + 1e-2 - 1e-14 / h - 1e-5 * 4.45e-7 * (h + 2 * 4.69e-11) / fraction
    assert abs(charge) <= 3e-9 + 1e-2 * (1e-8 if dtype == D else 1e-4)


def test_concentrations_have_exact_derivatives_in_constants_of_all_sizes() -> None:
    problem = bounded.get("carbonate-phosphate")

    def solved(shift: Tensor) -> Tensor:
        def F(z: Tensor, shift: Tensor) -> Tensor:
            return problem.function(z) - shift

        return im.root(F, problem.start(), shift, bounds=problem.bounds()).value

    # By the dense implicit function theorem at the known solution, in units of the unknowns.
    z = problem.known()
    expected = torch.linalg.inv(torch.func.jacrev(problem.function)(z) * z)
    mine = torch.func.jacrev(solved)(torch.zeros(9, dtype=D)) / z.unsqueeze(1)
    error = ((mine - expected).abs().amax(dim=0) / expected.abs().amax(dim=0)).max()
    assert error <= 1e-8


def test_unknowns_on_their_bounds_need_no_further_evaluations() -> None:
    # Neither shorter steps nor a search for derivatives that vanish on the way: some 40 evaluations.
    assert bounded.get("hock-schittkowski-4").solve().evaluations <= 20


def test_the_obstacle_problem_is_the_same_as_an_equation_and_as_a_minimum() -> None:
    problem = bounded.get("obstacle")

    def energy(z: Tensor) -> Tensor:
        return 0.5 * (z * problem.function(z)).sum()

    least = im.minimise(energy, problem.start(), bounds=problem.bounds()).value
    assert distance(problem, least) <= 1e-8


def by_scipy(problem: BoundedProblem, method: str) -> np.ndarray:
    lower, upper = (bound.numpy() for bound in problem.bounds())
    # Its interior methods want a start off the bounds.
    start = np.clip(problem.start().numpy(), lower + 1e-3, upper - 1e-3)

    def of(function: Any) -> Any:
        return lambda z: function(torch.tensor(z)).numpy()

    if problem.kind == "least_squares":
        jacobian = of(torch.func.jacrev(problem.function))
        return scipy.optimize.least_squares(
            of(problem.function), start, jacobian, bounds=(lower, upper), method=method,
            xtol=1e-14, ftol=1e-14, gtol=1e-14,
        ).x  # fmt: skip
    limits = scipy.optimize.Bounds(lower, upper)
    options = {"ftol": 1e-15, "gtol": 1e-10} if method == "L-BFGS-B" else {"gtol": 1e-10}
    return scipy.optimize.minimize(
        of(problem.function), start, jac=of(torch.func.grad(problem.function)), bounds=limits,
        method=method, options=options, **({} if method == "L-BFGS-B" else {"hess": scipy.optimize.BFGS()}),
    ).x  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WITH_SCIPY)
def test_scipy_finds_the_same_minima(name: str) -> None:
    problem = bounded.get(name)
    method = "trf" if problem.kind == "least_squares" else "L-BFGS-B"
    mine = problem.solve().value
    assert by_scipy(problem, method).tolist() == pytest.approx(mine.tolist(), rel=1e-4, abs=1e-4)
