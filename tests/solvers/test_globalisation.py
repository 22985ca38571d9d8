"""Line searches and the trust region: each step against its definition, computed in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    LevenbergMarquardt,
    LineSearch,
    Newton,
    NewtonKrylov,
    NonmonotoneLineSearch,
    Solution,
    Solver,
    Status,
    Stopping,
    TrustRegion,
    problems,
    root,
)
from implicitly.solvers.newton.globalisation import Model, Point
from implicitly.solvers.newton.trust_region import TrustRegionMemory
from oracle import Array
from torch import Tensor

from .references import as_float64

RULES = {
    "line search": LineSearch(),
    "nonmonotone": NonmonotoneLineSearch(),
    "trust region": TrustRegion(),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())


def solve_problem(name: str, solver: Solver, **options: Any) -> Solution:
    problem = problems.get(name)
    return root(problem.residual, problem.start(), solver=solver, on_failure="accept", **options)


# --- The dogleg ----------------------------------------------------------------------------------


def dogleg(J: Array, r: Array, newton: Array, D: Array, radius: float) -> Array:
    """The last point of the path 0 → Cauchy → Newton whose scaled length is `radius`, by bisection."""
    if np.linalg.norm(D * newton) <= radius:
        return newton
    direction = -(J.T @ r) / D**2
    t = -(r @ J @ direction) / np.sum((J @ direction) ** 2)

    def path(x: float) -> Array:
        return x * t * direction if x <= 1 else t * direction + (x - 1) * (newton - t * direction)

    # The length grows along the first leg; the second begins within the radius and ends beyond.
    low, high = (0.0, 1.0) if np.linalg.norm(D * path(1.0)) >= radius else (1.0, 2.0)
    for _ in range(200):
        middle = (low + high) / 2
        if np.linalg.norm(D * path(middle)) <= radius:
            low = middle
        else:
            high = middle
    return path(low)


def first_trial(J: Array, r: Array, step: Array, radius: float, known: bool) -> Array:
    """The first point that the trust region of this radius tries from the origin."""
    tried: list[Tensor] = []

    def evaluate(z: Tensor) -> Point:
        tried.append(z)
        return Point.of(z, torch.zeros_like(z))

    matrix, residual = torch.from_numpy(J)[None], torch.from_numpy(r)[None]
    start = Point.of(torch.zeros_like(residual), residual)
    model = Model(
        residual, torch.from_numpy(step)[None],
        jvp=lambda v: torch.einsum("bij,bj->bi", matrix, v),
        vjp=lambda u: torch.einsum("bij,bi->bj", matrix, u),
        lengths=torch.linalg.vector_norm(matrix, dim=1) if known else None,
    )  # fmt: skip
    memory = TrustRegionMemory(torch.tensor([radius], dtype=torch.float64), start.norm.unsqueeze(1))
    TrustRegion().advance(evaluate, start, model, memory, torch.tensor([False]))
    return as_float64(tried[0][0])


@given(
    n=st.integers(1, 6),
    share=st.floats(0.01, 1.5),
    inexact=st.booleans(),
    known=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_step_is_the_point_of_the_dogleg_at_the_radius(
    n: int, share: float, inexact: bool, known: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    J, r = generator.standard_normal((n, n)), generator.standard_normal(n)
    J *= np.geomspace(1, 1e3, n)
    target = r + 0.3 * np.linalg.norm(r) * generator.standard_normal(n) / n if inexact else r
    newton = -np.linalg.solve(J, target)
    D = np.linalg.norm(J, axis=0) if known else np.ones(n)
    radius = share * float(np.linalg.norm(D * newton))
    expected = dogleg(J, r, newton, D, radius)
    found = first_trial(J, r, newton, radius, known)
    # Both are backward stable in lengths that differ by the condition of the path: 1e3 · cond(J).
    scale = np.linalg.norm(D * expected)
    assert np.linalg.norm(D * (found - expected)) <= 1e-8 * scale
    assert np.linalg.norm(D * found) <= radius * (1 + 1e-9)


def test_the_radius_shrinks_when_steps_are_refused_and_the_step_turns_downhill() -> None:
    tried: list[Array] = []

    def evaluate(z: Tensor) -> Point:
        tried.append(as_float64(z[0]))
        return Point.of(z, torch.full_like(z, 100.0))

    r = torch.tensor([[1.0, 1.0]]).double()
    J = torch.tensor([[[1.0, 0.9], [0.0, 0.1]]]).double()
    step = -torch.linalg.solve(J, r.unsqueeze(2)).squeeze(2)
    model = Model(
        r, step,
        jvp=lambda v: torch.einsum("bij,bj->bi", J, v),
        vjp=lambda u: torch.einsum("bij,bi->bj", J, u),
    )  # fmt: skip
    rule = TrustRegion(max_trials=15)
    start = Point.of(torch.zeros_like(r), r)
    advance = rule.advance(evaluate, start, model, rule.begin(start), torch.tensor([False]))
    lengths = np.array([np.linalg.norm(z) for z in tried])
    assert len(tried) == 15
    assert not bool(advance.accepted)
    # Between a tenth and a half of the last, beginning with the Newton step.
    np.testing.assert_allclose(tried[0], as_float64(step[0]), rtol=1e-14)
    assert (lengths[1:] <= 0.5001 * lengths[:-1]).all()
    assert (lengths[1:] >= 0.0999 * lengths[:-1]).all()
    gradient = as_float64(torch.einsum("bij,bi->bj", J, r)[0])
    cosine = -tried[-1] @ gradient / np.linalg.norm(tried[-1]) / np.linalg.norm(gradient)
    assert cosine >= 1 - 1e-12
    assert torch.equal(advance.point.z, start.z)


def test_a_dense_trust_region_makes_no_product_and_a_krylov_one_few() -> None:
    dense = solve_problem("broyden-tridiagonal", Newton(globalisation=TrustRegion()))
    n, jacobians = 10, int(dense.steps)
    assert dense.counts.jvps == n * jacobians
    assert dense.counts.vjps == 0
    # Newton's method needs no help there: the radius never binds, and no gradient is formed.
    plain = solve_problem("broyden-tridiagonal", NewtonKrylov(globalisation=None))
    krylov = solve_problem("broyden-tridiagonal", NewtonKrylov(globalisation=TrustRegion()))
    assert krylov.counts.vjps == 0
    assert torch.equal(krylov.value, plain.value)
    # One product more for each step.
    assert krylov.counts.jvps == plain.counts.jvps + int(krylov.steps)
    bound = solve_problem("powell-badly-scaled", NewtonKrylov(globalisation=TrustRegion()))
    assert bool(bound.converged)
    assert 0 < bound.counts.vjps <= int(bound.steps)


# --- Line searches --------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, 3, 10])
@pytest.mark.parametrize("name", ["generalised-rosenbrock", "boggs", "powell-badly-scaled"])
def test_a_norm_is_below_the_largest_of_those_looked_back_at(name: str, memory: int) -> None:
    rule = NonmonotoneLineSearch(memory=memory)
    limit = Stopping(max_steps=400)
    solution = solve_problem(name, Newton(globalisation=rule), trace=True, stopping=limit)
    assert bool(solution.converged)
    assert solution.trace is not None
    norms = solution.trace[:, 0]
    for k in range(1, len(norms)):
        assert norms[k] < norms[max(0, k - memory) : k].max()
    if memory == 10 and name == "generalised-rosenbrock":
        assert (np.diff(norms) > 0).any()


def test_one_norm_to_look_back_at_is_the_rule_of_armijo() -> None:
    for name in ("generalised-rosenbrock", "wood", "helical-valley"):
        armijo = solve_problem(name, Newton(globalisation=LineSearch()))
        other = solve_problem(name, Newton(globalisation=NonmonotoneLineSearch(memory=1)))
        assert torch.equal(armijo.value, other.value)
        assert armijo.evaluations == other.evaluations


def evaluated(solver: Solver, start: float, steps: int) -> list[float]:
    """The points at which `steps` steps for `arctan z = 0` evaluate the residual."""
    points = []

    def F(z: Tensor) -> Tensor:
        if not z.requires_grad:
            points.append(float(z))
        return torch.atan(z)

    root(
        F, torch.tensor(start, dtype=torch.float64), solver=solver, on_failure="accept",
        stopping=Stopping(rtol=0.0, atol=1e-12, max_steps=steps),
    )  # fmt: skip
    return [z for z, before in zip(points, [None, *points], strict=False) if z != before]


def test_a_refused_step_is_cut_at_the_minimum_of_the_parabola() -> None:
    # Through |r|² at both ends, with the slope −2|r|² at the first: at 1 / (1 + |r₊|² / |r|²).
    r, step = np.arctan(3.0), -np.arctan(3.0) * (1 + 3.0**2)
    refused = np.arctan(3.0 + step)
    expected = [3.0, 3.0 + step, 3.0 + step / (1 + (refused / r) ** 2)]
    assert evaluated(Newton(globalisation=TrustRegion()), 3.0, 1)[:3] == pytest.approx(expected)


def test_the_damping_of_refused_steps_grows_by_four_then_by_eight_and_sixteen() -> None:
    # In units of the Jacobian's columns, a step is that of Newton divided by 1 + damping.
    newton = -np.arctan(20.0) * (1 + 20.0**2)
    dampings = [0.1, 0.1 * 4, 0.1 * 4 * 8, 0.1 * 4 * 8 * 16]
    expected = [20.0, *(20.0 + newton / (1 + damping) for damping in dampings)]
    solver = LevenbergMarquardt(first_damping=0.1, balance=False)
    assert evaluated(solver, 20.0, 1)[:5] == pytest.approx(expected)


def test_armijo_steps_are_those_of_the_formula() -> None:
    # atan from 10: the lengths that the parabola through both ends gives, in NumPy.
    z, points = 10.0, []
    for _ in range(3):
        r, step, length = -np.arctan(z), -np.arctan(z) * (1 + z * z), 1.0
        while abs(np.arctan(z + length * step)) > (1 - 1e-4 * length) * abs(r):
            ratio = np.arctan(z + length * step) / r
            length *= np.clip(length / (ratio**2 - 1 + 2 * length), 0.1, 0.5)
        z += length * step
        points.append(z)
    for steps, point in enumerate(points, start=1):
        solution = root(
            torch.atan, torch.tensor(10.0, dtype=torch.float64),
            solver=Newton(globalisation=LineSearch()), on_failure="accept",
            stopping=Stopping(max_steps=steps),
        )  # fmt: skip
        # ‖r‖ of a rounded z is known to some units; a step multiplies its error by 1 + z² at most.
        assert solution.value.item() == pytest.approx(point, rel=1e-12, abs=1e-14)


# --- What all share -------------------------------------------------------------------------------


@every_rule
@pytest.mark.parametrize("solver", [Newton, NewtonKrylov])
def test_where_no_step_lowers_the_residual_the_status_says_so(solver: Any, rule: Any) -> None:
    # A minimum of |z² + 1| that is no root, with a start beside it.
    solution = root(
        lambda z: z**2 + 1, torch.tensor(0.7, dtype=torch.float64),
        solver=solver(globalisation=rule), on_failure="accept",
    )  # fmt: skip
    assert int(solution.status) in (Status.STALLED, Status.LINEAR_SOLVE_FAILED, Status.MAX_STEPS)
    assert 1.0 <= solution.residual_norm.item() <= 1.49


@pytest.mark.parametrize("solver", [Newton, NewtonKrylov])
@pytest.mark.parametrize("kind", [LineSearch, NonmonotoneLineSearch, TrustRegion])
def test_a_search_that_fails_ends_the_solve_and_takes_no_step(solver: Any, kind: Any) -> None:
    # Steps lead across the kink, shorter ones less far, until three trials are too few.
    rule = kind(max_trials=3) if kind is LineSearch else kind(max_trials=3, memory=1)
    solution = root(
        lambda z: z.abs() + 1, torch.tensor(0.9, dtype=torch.float64),
        solver=solver(globalisation=rule), on_failure="accept", trace=True,
    )  # fmt: skip
    assert int(solution.status) == Status.STALLED
    assert int(solution.steps) < 20
    assert solution.trace is not None
    assert (np.diff(solution.trace[:, 0]) <= 0).all()
    assert solution.trace[-1, 0] == solution.trace[-2, 0]


@pytest.mark.parametrize(
    "solver",
    [
        *(Newton(globalisation=rule) for rule in RULES.values()),
        LevenbergMarquardt(first_damping=1e-3),
    ],
    ids=[*RULES, "Levenberg-Marquardt"],
)
def test_no_trial_follows_one_that_is_the_start_to_the_last_digit(solver: Solver) -> None:
    # √2 as it is rounded: the Newton step is a third of its last digit, and the residual one of two.
    z0 = torch.tensor(2.0, dtype=torch.float64).sqrt()
    solution = root(lambda z: z**2 - 2, z0, solver=solver)
    assert bool(solution.converged)
    assert solution.value.item() == z0.item()
    # At the start, for the Jacobian, one trial or two, and four by which the claim is examined.
    assert solution.counts.evaluations <= 8


@every_rule
def test_a_trial_that_is_not_finite_is_shortened(rule: Any) -> None:
    # From 3 the full step leads to a negative number: log(3) · 3 > 3.
    solution = root(
        torch.log, torch.tensor(3.0, dtype=torch.float64), solver=Newton(globalisation=rule)
    )
    assert solution.value.item() == pytest.approx(1.0, abs=1e-9)
    undamped = root(
        torch.log, torch.tensor(3.0, dtype=torch.float64), solver=Newton(globalisation=None),
        on_failure="accept",
    )  # fmt: skip
    assert int(undamped.status) == Status.NON_FINITE


@every_rule
def test_each_trial_is_one_evaluation_and_at_most_two_numbers_read_back(
    rule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    of_tensor = Tensor.__bool__

    def counting(self: Tensor) -> bool:
        nonlocal reads
        reads += 1
        return of_tensor(self)

    monkeypatch.setattr(Tensor, "__bool__", counting)
    problem = problems.get("wood")
    solution = root(problem.residual, problem.start(), solver=Newton(globalisation=rule))
    trials = solution.evaluations - 1 - int(solution.steps)
    assert trials >= int(solution.steps)
    # One of them asks whether the radius binds; the tolerance is looked at by another route.
    assert reads <= 2 * trials + 4


BALANCED = {
    "Newton": Newton(),
    "line search": Newton(globalisation=LineSearch(balance=True)),
    "chord": Newton(refresh=None),
    "Levenberg–Marquardt": LevenbergMarquardt(),
}


@pytest.mark.parametrize("solver", BALANCED.values(), ids=BALANCED.keys())
@pytest.mark.parametrize("name", ["wood", "powell-badly-scaled", "broyden-banded"])
def test_the_unit_of_each_equation_does_not_matter(solver: Solver, name: str) -> None:
    problem = problems.get(name)
    n = len(problem.start())
    # Powers of two change no digit. The tolerance does count each equation as it is given, so the
    # iterates are compared after a number of steps.
    factors = 2.0 ** torch.linspace(-20, 20, n, dtype=torch.float64).round()
    for steps in (1, 3, 6):
        options: dict[str, Any] = {
            "solver": solver, "on_failure": "accept",
            "stopping": Stopping(rtol=0.0, atol=0.0, max_steps=steps, divergence=1e300),
            "callback": lambda step, norms: False,
        }  # fmt: skip
        last: list[Tensor] = []

        def recorded(z: Tensor, scale: Tensor, last: list[Tensor] = last) -> Tensor:
            last.append(z.detach().clone())
            return scale * problem.residual(z)

        ends = []
        for scale in (torch.ones(n, dtype=torch.float64), factors):
            last.clear()
            root(recorded, problem.start(), scale, **options)
            ends.append(torch.stack(last))
        assert ends[0].shape == ends[1].shape
        torch.testing.assert_close(ends[1], ends[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "solver",
    [Newton(globalisation=TrustRegion(balance=False)), LevenbergMarquardt(balance=False)],
    ids=["trust region", "Levenberg–Marquardt"],
)
@pytest.mark.parametrize("name", ["wood", "helical-valley", "powell-singular"])
def test_the_unit_of_each_unknown_does_not_matter(solver: Solver, name: str) -> None:
    problem = problems.get(name)
    start = problem.start()
    factors = 2.0 ** torch.linspace(-6, 6, len(start), dtype=torch.float64).round()
    # A residual taken at its word: near a singular root the last steps are rounding.
    size = problem.residual(start).square().mean().sqrt().item()
    stopping = Stopping(rtol=0.0, atol=1e-10 * size)
    plain = root(problem.residual, start, solver=solver, stopping=stopping)
    scaled = root(
        lambda z: problem.residual(z / factors), start * factors, solver=solver, stopping=stopping
    )
    assert torch.equal(scaled.steps, plain.steps)
    torch.testing.assert_close(scaled.value / factors, plain.value, rtol=1e-8, atol=1e-10)
