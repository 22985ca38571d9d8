"""What holds for every problem: its known roots, derivatives, batches, dtypes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from implicitly import problems
from implicitly.problems import TestProblem
from torch import Tensor

NAMES = problems.names()
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
    "convection-diffusion": (1, 4, 400),
    "power-flow": (2,),
    "troesch": (1, 400),
}
SIZES = [(name, problems.get(name).standard_size) for name in NAMES] + [
    (name, n) for name, sizes in OTHER_SIZES.items() for n in sizes
]


def flat(problem: TestProblem, n: int | None = None) -> Callable[[Tensor], Tensor]:
    """The residual on `(..., unknowns)`, where independent systems of one problem are joined."""
    shape = problem.start(n).shape

    def residual(z: Tensor) -> Tensor:
        return problem.residual(z.unflatten(-1, shape)).flatten(-len(shape))

    return residual


def near_start(problem: TestProblem, rows: int, seed: int = 0) -> Tensor:
    """Points around the standard start, no two entries alike, off every axis."""
    generator = torch.Generator().manual_seed(seed)
    start = problem.start().flatten()
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
    residual = flat(problem, n)
    for root in problem.roots(n, dtype):
        z = root.value.flatten()
        # Rounding a root moves F by |J| |z| eps, and each operation of F by as much again: at a
        # root all terms of a sum cancel, so that |J| |z| bounds the constant among them.
        # Each equation by its own size.
        size = torch.func.jacrev(residual)(z.double()).abs() @ z.double().abs()
        error = residual(z).double().abs()
        assert bool((error <= operations(len(z)) * eps * size).all())


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


@pytest.mark.parametrize("name", NAMES)
def test_reverse_forward_and_difference_derivatives_agree(name: str) -> None:
    problem = problems.get(name)
    residual = flat(problem)
    (z,) = near_start(problem, 1)
    reverse = torch.func.jacrev(residual)(z)
    forward = torch.func.jacfwd(residual)(z)
    torch.testing.assert_close(reverse, forward, rtol=1e-13, atol=1e-13 * reverse.abs().max())
    differences, error = central_differences(residual, z)
    assert bool(((reverse - differences).abs() <= error).all())


def central_differences(residual: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """The Jacobian by two central differences, extrapolated, and a bound on its error.

    The extrapolated one is better than either, so that their distance bounds its error; the noise is
    that of values rounded to n·eps of the largest term, over the smaller step.
    """
    n, step = len(z), 1e-4

    def by(h: float) -> Tensor:
        moves = h * torch.eye(n, dtype=z.dtype)
        return (residual(z + moves) - residual(z - moves)).mT / (2 * h)

    near, far = by(step), by(2 * step)
    jacobian = torch.func.jacrev(residual)(z).abs()
    size = (jacobian @ z.abs() + residual(z).abs()).unsqueeze(1)
    noise = operations(n) * 2.0**-52 * (size + jacobian) / step
    return near + (near - far) / 3, (near - far).abs() + noise


@pytest.mark.parametrize("name", NAMES)
def test_the_forward_product_is_that_with_the_jacobian(name: str) -> None:
    problem = problems.get(name)
    residual = flat(problem)
    z, v = near_start(problem, 2)
    value, product = torch.func.jvp(residual, (z,), (v,))[:2]
    jacobian = torch.func.jacrev(residual)(z)
    bound = operations(len(z)) * 2.0**-52 * (jacobian.abs() @ v.abs()).max().item()
    torch.testing.assert_close(product, jacobian @ v, rtol=0, atol=bound)
    torch.testing.assert_close(value, residual(z), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_rows_in_any_shape_and_under_vmap(name: str) -> None:
    problem = problems.get(name)
    residual = flat(problem)
    z = near_start(problem, 6)
    rows = torch.stack([residual(row) for row in z])
    # The order of a sum may change with the shape: a few units of what is summed.
    jacobian = torch.func.vmap(torch.func.jacrev(residual))(z).abs()
    size = (jacobian @ z.abs().unsqueeze(-1)).max().item() + rows.abs().max().item()
    bound = operations(z.shape[1]) * 2.0**-52 * size
    torch.testing.assert_close(residual(z), rows, rtol=0, atol=bound)
    shaped = residual(z.reshape(2, 3, -1))
    torch.testing.assert_close(shaped.reshape(6, -1), rows, rtol=0, atol=bound)
    mapped = torch.func.vmap(residual)(z)
    torch.testing.assert_close(mapped, rows, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_residual_computes_in_the_dtype_of_its_unknown(name: str, dtype: torch.dtype) -> None:
    problem = problems.get(name)
    residual = flat(problem)
    z = problem.start(dtype=dtype).flatten()
    value = residual(z)
    assert z.dtype == value.dtype == dtype
    assert value.shape == z.shape
    exact = residual(z.double())
    jacobian = torch.func.jacrev(residual)(z.double()).abs()
    size = (jacobian @ z.double().abs()).max().item() + exact.abs().max().item() + 1
    bound = operations(len(z)) * torch.finfo(dtype).eps * size
    assert (value.double() - exact).abs().max().item() <= bound
