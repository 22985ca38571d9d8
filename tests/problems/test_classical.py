"""The classical problems: known roots, derivatives, batches, dtypes, and what SciPy makes of them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from implicitly import problems
from implicitly.problems import TestProblem
from scipy.optimize import root as scipy_root
from torch import Tensor

CLASSICAL = problems.names(tag="classical")
OTHER_SIZES = {
    "generalised-rosenbrock": (2, 33),
    "watson": (6, 9, 12),
    "chebyquad": (1, 3, 4, 5, 6, 7, 9),
    "brown-almost-linear": (2, 3, 11, 30),
    "discrete-boundary-value": (1, 1000),
    "discrete-integral": (1, 1000),
    "trigonometric": (1, 50),
    "variably-dimensioned": (1, 50),
    "broyden-tridiagonal": (1, 1000),
    "broyden-banded": (1, 4, 1000),
    "chandrasekhar-h": (1, 100),
}
SIZES = [(name, problems.get(name).standard_size) for name in CLASSICAL] + [
    (name, n) for name, sizes in OTHER_SIZES.items() for n in sizes
]


def near_start(problem: TestProblem, rows: int, seed: int = 0) -> Tensor:
    """Points around the standard start, no two entries alike, off every axis."""
    generator = torch.Generator().manual_seed(seed)
    start = problem.start()
    noise = torch.randn(rows, len(start), generator=generator, dtype=torch.float64)
    return start + 0.1 * noise


def operations(n: int) -> int:
    """Rounding errors that may add up in one residual: sums over n unknowns and a few more."""
    return 2 * n + 40


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "n"), SIZES)
def test_every_known_root_is_one_to_rounding(name: str, n: int, dtype: torch.dtype) -> None:
    problem = problems.get(name)
    eps = torch.finfo(dtype).eps
    for root in problem.roots(n, dtype):
        # Rounding a root moves F by |J| |z| eps, and each operation of F by as much again: at a
        # root all terms of a sum cancel, so that |J| |z| bounds the constant among them.
        jacobian = torch.func.jacrev(problem.residual)(root.value.double())
        size = (jacobian.abs() @ root.value.double().abs()).max().item()
        error = problem.residual(root.value).abs().max().item()
        assert error <= operations(n) * eps * size


def test_roots_that_are_hard_to_evaluate_are_few_and_named() -> None:
    listed = {name: [root.singular for root in problems.get(name).roots()] for name in CLASSICAL}
    singular = {name for name, flags in listed.items() if any(flags)}
    assert singular == {
        "powell-singular", "matrix-square-root-3", "exponential-axes", "radial-cubic",
        "scalar-double",
    }  # fmt: skip
    assert all(listed.values())  # Each has a known root in its standard size.


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_root_is_flagged_as_singular_where_its_jacobian_is(name: str) -> None:
    problem = problems.get(name)
    for root in problem.roots():
        jacobian = torch.func.jacrev(problem.residual)(root.value)
        values = torch.linalg.svdvals(jacobian)
        # Regular ones here have σ_min / σ_max ≥ 6e-14 (the matrix square roots), 300 eps.
        assert root.singular == bool(values[-1] <= 16 * 2.0**-52 * values[0])


@pytest.mark.parametrize("name", CLASSICAL)
def test_reverse_forward_and_difference_derivatives_agree(name: str) -> None:
    problem = problems.get(name)
    (z,) = near_start(problem, 1)
    reverse = torch.func.jacrev(problem.residual)(z)
    forward = torch.func.jacfwd(problem.residual)(z)
    torch.testing.assert_close(reverse, forward, rtol=1e-13, atol=1e-13 * reverse.abs().max())
    differences, error = central_differences(problem, z)
    assert bool(((reverse - differences).abs() <= error).all())


def central_differences(problem: TestProblem, z: Tensor) -> tuple[Tensor, Tensor]:
    """The Jacobian by two central differences, extrapolated, and a bound on its error.

    The extrapolated one is better than either, so that their distance bounds its error; the noise is
    that of values rounded to n·eps of the largest term, over the smaller step.
    """
    n, step = len(z), 1e-4

    def by(h: float) -> Tensor:
        moves = h * torch.eye(n, dtype=z.dtype)
        return (problem.residual(z + moves) - problem.residual(z - moves)).mT / (2 * h)

    near, far = by(step), by(2 * step)
    jacobian = torch.func.jacrev(problem.residual)(z).abs()
    size = (jacobian @ z.abs() + problem.residual(z).abs()).unsqueeze(1)
    noise = operations(n) * 2.0**-52 * (size + jacobian) / step
    return near + (near - far) / 3, (near - far).abs() + noise


@pytest.mark.parametrize("name", CLASSICAL)
def test_the_forward_product_is_that_with_the_jacobian(name: str) -> None:
    problem = problems.get(name)
    z, v = near_start(problem, 2)
    value, product = torch.func.jvp(problem.residual, (z,), (v,))[:2]
    jacobian = torch.func.jacrev(problem.residual)(z)
    bound = operations(len(z)) * 2.0**-52 * (jacobian.abs() @ v.abs()).max().item()
    torch.testing.assert_close(product, jacobian @ v, rtol=0, atol=bound)
    torch.testing.assert_close(value, problem.residual(z), rtol=0, atol=0)


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_batch_is_its_rows_in_any_shape_and_under_vmap(name: str) -> None:
    problem = problems.get(name)
    z = near_start(problem, 6)
    rows = torch.stack([problem.residual(row) for row in z])
    # The order of a sum may change with the shape: a few units of what is summed.
    jacobian = torch.func.vmap(torch.func.jacrev(problem.residual))(z).abs()
    size = (jacobian @ z.abs().unsqueeze(-1)).max().item() + rows.abs().max().item()
    bound = operations(z.shape[1]) * 2.0**-52 * size
    torch.testing.assert_close(problem.residual(z), rows, rtol=0, atol=bound)
    shaped = problem.residual(z.reshape(2, 3, -1))
    torch.testing.assert_close(shaped.reshape(6, -1), rows, rtol=0, atol=bound)
    mapped = torch.func.vmap(problem.residual)(z)
    torch.testing.assert_close(mapped, rows, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CLASSICAL)
def test_a_residual_computes_in_the_dtype_of_its_unknown(name: str, dtype: torch.dtype) -> None:
    problem = problems.get(name)
    z = problem.start(dtype=dtype)
    value = problem.residual(z)
    assert z.dtype == value.dtype == dtype
    assert value.shape == z.shape
    exact = problem.residual(z.double())
    jacobian = torch.func.jacrev(problem.residual)(z.double()).abs()
    size = (jacobian @ z.double().abs()).max().item() + exact.abs().max().item() + 1
    bound = operations(len(z)) * torch.finfo(dtype).eps * size
    assert (value.double() - exact).abs().max().item() <= bound


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
