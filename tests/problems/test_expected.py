"""Which classical problems each native solver solves, and that none claims what it has not solved.

Standard start, float64, every entry of the residual at most 1e-8, at most 10,000 evaluations. `fails` must
fail honestly. `borderline` may go either way: there the outcome changes when the start moves by 1e-14, as it
does with the rounding of a machine. Everything else must be solved. `docs/results/solved.md` has the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from implicitly import (
    DFSANE,
    Aitken,
    Anderson,
    Broyden,
    FixedPointIteration,
    Homotopy,
    LevenbergMarquardt,
    LineSearch,
    Newton,
    NewtonKrylov,
    NonmonotoneLineSearch,
    Polyalgorithm,
    PseudoTransient,
    Solution,
    Solver,
    Steffensen,
    Stopping,
    TrustRegion,
    problems,
    root,
)
from implicitly.solvers import BiCGStab

CLASSICAL = problems.names(tag="classical")
TOLERANCE, LIMIT = 1e-8, 10_000


@dataclass(frozen=True)
class Expected:
    """What a solver is known to do."""

    solver: Solver
    fails: tuple[str, ...] = ()
    borderline: tuple[str, ...] = ()
    slow: bool = False


VALLEY = "freudenstein-roth"  # A minimum of the residual catches every descent.
CHAIN = "generalised-rosenbrock"
EXPECTED = {
    "Polyalgorithm": Expected(Polyalgorithm(remember=False)),
    "Homotopy": Expected(Homotopy(), ("brown-almost-linear",)),
    "Newton": Expected(Newton(), (VALLEY,)),
    "Newton-full-steps": Expected(Newton(globalisation=None), (CHAIN, "brown-almost-linear")),
    "Newton-line-search": Expected(Newton(globalisation=LineSearch()), (VALLEY,)),
    "Newton-nonmonotone": Expected(Newton(globalisation=NonmonotoneLineSearch()), (VALLEY,)),
    # The default of `Newton`.
    "Newton-trust-region": Expected(
        Newton(globalisation=TrustRegion()), (VALLEY,), slow=True
    ),
    "Newton-Shamanskii": Expected(Newton(refresh=3), (VALLEY,)),
    "Newton-chord": Expected(Newton(refresh=None), (VALLEY,)),
    "LevenbergMarquardt": Expected(LevenbergMarquardt(), (VALLEY,)),
    "PseudoTransient": Expected(
        PseudoTransient(), (CHAIN, "powell-badly-scaled", "trigonometric"), ("helical-valley",)
    ),
    "NewtonKrylov": Expected(NewtonKrylov(), (CHAIN, VALLEY), slow=True),
    "NewtonKrylov-trust-region": Expected(
        NewtonKrylov(globalisation=TrustRegion()), (VALLEY,), slow=True
    ),
    "NewtonKrylov-BiCGStab": Expected(
        NewtonKrylov(linear_solver=BiCGStab()), ("helical-valley", VALLEY), ("boggs",), slow=True
    ),
    "Broyden-good": Expected(
        Broyden(kind="good"),
        (CHAIN, "powell-singular", "powell-badly-scaled", VALLEY),
        ("wood", "matrix-square-root-3", "trigonometric"),
    ),
    "Broyden-bad": Expected(
        Broyden(kind="bad"),
        (
            CHAIN, "powell-singular", "powell-badly-scaled", "wood", "discrete-boundary-value",
            "trigonometric", VALLEY,
        ),
        ("helical-valley", "matrix-square-root-2", "matrix-square-root-3"),
        slow=True,
    ),
    "Anderson-II": Expected(
        Anderson(kind="II"),
        (CHAIN, "powell-badly-scaled", "trigonometric"),
        ("wood", "helical-valley", "matrix-square-root-2", "matrix-square-root-3", VALLEY),
    ),
    "Anderson-I": Expected(
        Anderson(kind="I"),
        (CHAIN, "powell-badly-scaled", "trigonometric", VALLEY, "boggs"),
        (
            "powell-singular", "wood", "helical-valley", "matrix-square-root-2",
            "matrix-square-root-3", "exponential-axes",
        ),
    ),
    "DFSANE": Expected(
        DFSANE(),
        (
            CHAIN, "powell-singular", "powell-badly-scaled", "wood", "helical-valley", VALLEY,
            "boggs",
        ),
    ),
    "Aitken": Expected(
        Aitken(),
        (
            CHAIN, "powell-singular", "wood", "helical-valley", "trigonometric",
            "matrix-square-root-3", VALLEY,
        ),
    ),
    "Steffensen": Expected(
        Steffensen(),
        (
            CHAIN, "powell-singular", "powell-badly-scaled", "wood", "helical-valley",
            "trigonometric", "matrix-square-root-2", "matrix-square-root-3",
        ),
    ),
    "FixedPointIteration": Expected(
        FixedPointIteration(),
        tuple(
            name
            for name in CLASSICAL
            if name not in ("chebyquad", "discrete-integral", "exponential-axes", "chandrasekhar-h")
        ),
    ),
}  # fmt: skip


def solve(name: str, solver: Solver) -> tuple[Solution, float]:
    """The solution, and the largest entry of the residual there."""
    problem = problems.get(name)
    # A root-mean-square norm of 1e-8/√n bounds every entry by 1e-8.
    atol = TOLERANCE / problem.standard_size**0.5
    stopping = Stopping(rtol=0.0, atol=atol, max_steps=LIMIT, max_evaluations=LIMIT)
    solution = root(
        problem.residual, problem.start(), solver=solver, stopping=stopping, on_failure="accept"
    )
    return solution, problem.residual(solution.value).abs().max().item()


def is_as_expected(expected: Expected) -> None:
    solved = set()
    for name in CLASSICAL:
        solution, residual = solve(name, expected.solver)
        # Whatever is expected: success is claimed where there is a root, and only there.
        assert bool(solution.converged) == (residual <= TOLERANCE), name
        if solution.converged:
            solved.add(name)
    assert set(CLASSICAL) - solved - set(expected.borderline) == set(expected.fails)


@pytest.mark.parametrize("label", [k for k, expected in EXPECTED.items() if not expected.slow])
def test_a_solver_solves_what_it_is_known_to_and_claims_nothing_else(label: str) -> None:
    is_as_expected(EXPECTED[label])


@pytest.mark.long
@pytest.mark.parametrize("label", [k for k, expected in EXPECTED.items() if expected.slow])
def test_a_slow_solver_solves_what_it_is_known_to_and_claims_nothing_else(label: str) -> None:
    is_as_expected(EXPECTED[label])


@pytest.mark.parametrize("solver", [Newton(), LevenbergMarquardt()], ids=repr)
@pytest.mark.parametrize("n", [8, 10])
def test_what_has_no_root_is_not_solved(n: int, solver: Solver) -> None:
    problem = problems.get("chebyquad")
    assert problem.roots(n) == ()
    solution = root(problem.residual, problem.start(n), solver=solver, on_failure="accept")
    assert not bool(solution.converged)
    residual = problem.residual(solution.value)
    # What is reported is the residual of what is returned.
    reported = solution.residual_norm.item() * n**0.5
    assert residual.norm().item() == pytest.approx(reported, rel=1e-12)
