"""Dense linear equations, and the trap that batched LU can be: wrong numbers without an error."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import DenseLU, Newton, fixed_point
from implicitly.solvers import solve_dense
from implicitly.solvers.linear.dense import DenseFactors
from torch import Tensor

from .references import TanhSystems, as_float64, tanh_map


def draw(batch: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    matrices = generator.standard_normal((batch, n, n)) + 3 * np.eye(n)
    return torch.from_numpy(matrices), torch.from_numpy(generator.standard_normal((batch, n)))


def check_against_lapack(matrices: Tensor, right: Tensor, found: Tensor) -> None:
    """The error is at most condition times rounding, of a backward stable solution on either side."""
    A, b, x = as_float64(matrices), as_float64(right), as_float64(found)
    expected = np.linalg.solve(A, b[:, :, None])[:, :, 0]
    condition = np.linalg.cond(A) if A.size else np.ones(len(A))
    n = max(A.shape[1], 1)
    error = np.linalg.norm(x - expected, axis=1)
    assert (error <= 10 * n * 2.0**-52 * condition * np.linalg.norm(expected, axis=1)).all()


@given(batch=st.integers(0, 4), n=st.integers(0, 8), seed=st.integers(0, 1000))
def test_regular_systems_are_solved_as_lapack_does(batch: int, n: int, seed: int) -> None:
    matrices, right = draw(batch, n, seed)
    check_against_lapack(matrices, right, solve_dense(matrices, right))


class Result(NamedTuple):
    result: Tensor
    info: Tensor


def spoil(monkeypatch: pytest.MonkeyPatch, which: list[int]) -> list[int]:
    """Make batched LU return wrong numbers for the systems `which`; the list of its batch sizes."""
    at_once, substituted, sizes = torch.linalg.solve_ex, torch.linalg.lu_solve, []

    def spoilt(result: Tensor) -> Tensor:
        if result.ndim == 3:
            sizes.append(len(result))
            for i in which:
                result[i] *= 1 + 1e-3
        return result

    def solve_ex(matrices: Tensor, right: Tensor, **options: Any) -> Result:
        result, info = at_once(matrices, right, **options)
        return Result(spoilt(result), info)

    def lu_solve(*arguments: Tensor, **options: Any) -> Tensor:
        return spoilt(substituted(*arguments, **options))

    monkeypatch.setattr(torch.linalg, "solve_ex", solve_ex)
    monkeypatch.setattr(torch.linalg, "lu_solve", lu_solve)
    return sizes


def solve_transposed(matrices: Tensor, right: Tensor) -> Tensor:
    return DenseFactors.of(matrices.mT.contiguous()).solve(right, transpose=True)


WAYS = {
    "at once": solve_dense,
    "factors": lambda matrices, right: DenseFactors.of(matrices).solve(right),
    "factors of the transpose": solve_transposed,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("which", [[0], [1, 3], [0, 1, 2, 3]], ids=str)
def test_wrong_answers_of_batched_lu_are_found_and_mended(
    monkeypatch: pytest.MonkeyPatch, which: list[int], way: str
) -> None:
    matrices, right = draw(4, 20, seed=0)
    sizes = spoil(monkeypatch, which)
    found = WAYS[way](matrices, right)
    assert sizes == [4]
    check_against_lapack(matrices, right, found)


def test_newton_and_dense_lu_do_not_notice_wrong_batched_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    systems = TanhSystems.draw(3, 10, 0.8, seed=0)
    W, x = systems.tensors(torch.float64)
    honest = fixed_point(tanh_map, torch.zeros_like(x), W, x, solver=Newton(), batch_dims=1)
    matrices, right = draw(3, 10, seed=1)
    sizes = spoil(monkeypatch, [0, 1, 2])
    spoilt = fixed_point(tanh_map, torch.zeros_like(x), W, x, solver=Newton(), batch_dims=1)
    assert torch.equal(spoilt.steps, honest.steps)
    # ‖z‖ ≤ √10, over 1 − 0.8.
    np.testing.assert_allclose(
        as_float64(spoilt.value), systems.answer(), rtol=0, atol=1e-10 * 3.2 / 0.2
    )
    linear = fixed_point(
        lambda z, A, b: z - torch.einsum("bij,bj->bi", A, z) + b,
        torch.zeros_like(right), matrices, right, solver=DenseLU(), batch_dims=1, linear=True,
    )  # fmt: skip
    assert linear.steps.tolist() == [1, 1, 1]
    check_against_lapack(matrices, right, linear.value)
    assert len(sizes) > 1


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_singular_systems_get_the_least_squares_solution_of_minimum_norm(n: int) -> None:
    generator = np.random.default_rng(n)
    rank = n // 2
    left, other = generator.standard_normal((n, rank)), generator.standard_normal((rank, n))
    singular = torch.from_numpy(left @ other)
    regular, _ = draw(1, n, seed=n)
    matrices = torch.stack([singular, regular[0], torch.zeros(n, n, dtype=torch.float64)])
    right = torch.from_numpy(generator.standard_normal((3, n)))
    found = as_float64(solve_dense(matrices, right))
    for i in range(3):
        best = np.linalg.lstsq(matrices[i].numpy(), right[i].numpy(), rcond=1e-13)[0]
        # The nonzero singular values lie within a factor of some hundreds of each other.
        np.testing.assert_allclose(found[i], best, rtol=0, atol=1e-10 * (1 + np.abs(best).max()))


def test_a_system_that_is_not_finite_gives_nan_and_spares_its_neighbours() -> None:
    matrices, right = draw(4, 5, seed=2)
    clean = solve_dense(matrices, right)
    matrices[1, 2, 3] = torch.nan
    right[2, 0] = torch.inf
    found = solve_dense(matrices, right)
    assert bool(torch.isnan(found[1:3]).all())
    assert torch.equal(found[[0, 3]], clean[[0, 3]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_rows_of_very_different_size_are_no_reason_to_distrust_a_solution(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales = torch.logspace(-12, 12, 10, dtype=dtype)
    matrices = torch.diag_embed(scales)[None]
    # A fall-back on singular values would cut the small ones off.
    monkeypatch.delattr(torch.linalg, "svd")
    found = solve_dense(matrices, scales[None])
    torch.testing.assert_close(found, torch.ones(1, 10, dtype=dtype))


def test_scale_does_not_matter() -> None:
    matrices, right = draw(3, 6, seed=3)
    found = solve_dense(matrices, right)
    for factor in (2.0**-300, 2.0**300):
        torch.testing.assert_close(
            solve_dense(factor * matrices, factor * right), found, rtol=1e-12, atol=0
        )


SEVERAL_THREADS = """
import numpy as np, torch
torch.set_num_threads(2)
from implicitly import DenseLU, Newton, fixed_point
from implicitly.solvers import solve_dense
from implicitly.solvers.linear.dense import DenseFactors
generator = np.random.default_rng(0)
for n in (160, 257):
    M = generator.standard_normal((4, n, n)) / n**0.5 * 0.4
    c = generator.standard_normal((4, n))
    expected = np.linalg.solve(np.eye(n) - M, c[:, :, None])[:, :, 0]
    A, b = torch.from_numpy(np.eye(n) - M), torch.from_numpy(c)
    for _ in range(2):
        assert np.abs(solve_dense(A, b).numpy() - expected).max() < 1e-11
        assert np.abs(DenseFactors.of(A).solve(b).numpy() - expected).max() < 1e-11
    single = solve_dense(A.float(), b.float()).double().numpy()
    assert np.abs(single - expected).max() < 1e-3
matrices, constants = torch.from_numpy(M), torch.from_numpy(c)
def f(z):
    return torch.einsum("bij,bj->bi", matrices, z) + constants
for solver, linear in ((DenseLU(), True), (Newton(), False)):
    z0 = torch.zeros(4, n, dtype=torch.float64)
    solution = fixed_point(f, z0, solver=solver, batch_dims=1, linear=linear)
    assert np.abs(solution.value.numpy() - expected).max() < 1e-8
print(torch.get_num_threads())
"""


@pytest.mark.long
def test_large_batches_are_solved_right_by_several_threads() -> None:
    # In a process of its own: the number of threads is a setting of the whole process.
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL_THREADS], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    # The mathematics library may complain on the same stream of what it was given.
    assert done.stdout.split()[-1] == "2"
