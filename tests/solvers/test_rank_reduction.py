"""The nearest matrix of lower rank: the one of the singular value decomposition, and its derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly.solvers.quasi_newton.rank_reduction import reduce_rank
from torch import Tensor


def factors(batch: int, terms: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    left, right = generator.standard_normal((2, batch, terms, n))
    return torch.from_numpy(left), torch.from_numpy(right)


def truncated(matrix: Any, rank: int) -> Any:
    u, sizes, v = np.linalg.svd(matrix, full_matrices=False)
    return (u[..., :rank] * sizes[..., None, :rank]) @ v[..., :rank, :]


@given(
    batch=st.integers(1, 3),
    terms=st.integers(1, 8),
    n=st.integers(1, 12),
    rank=st.integers(0, 8),
    seed=st.integers(0, 1000),
    scales=st.tuples(st.sampled_from([1e-100, 1.0, 1e100]), st.sampled_from([1e-100, 1.0, 1e100])),
)
def test_it_is_the_truncated_singular_value_decomposition(
    batch: int, terms: int, n: int, rank: int, seed: int, scales: tuple[float, float]
) -> None:
    left, right = factors(batch, terms, n, seed)
    u, v = reduce_rank(scales[0] * left, scales[1] * right, rank)
    kept = min(rank, terms, n)
    assert u.shape == v.shape == (batch, kept, n)
    product = (u.mT @ (v / (scales[0] * scales[1]))).numpy()
    matrix = (left.mT @ right).numpy()
    # No matrix of that rank is nearer (Eckart & Young). Eigenvalues of a Gram matrix choose the subspace:
    # the defect is off by rounding of squares, so the distance itself by its root at most.
    nearest = np.linalg.norm(matrix - truncated(matrix, rank), axis=(1, 2))
    distance = np.linalg.norm(matrix - product, axis=(1, 2))
    size = np.linalg.norm(matrix, axis=(1, 2))
    assert (distance**2 <= nearest**2 + 100 * n * np.finfo(float).eps * size**2).all()
    # The new right vectors are orthonormal.
    gram = (v @ v.mT).numpy()
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(kept), gram.shape), atol=1e-13)


def test_a_term_that_is_not_finite_is_left_out_of_its_system_alone() -> None:
    left, right = factors(3, 4, 6, seed=0)
    expected = left.clone(), right.clone()
    expected[0][0, 1] = 0.0
    expected[0][1, 2] = 0.0
    left[0, 1, 3] = torch.nan
    right[1, 2, 0] = torch.inf
    u, v = reduce_rank(left, right, 2)
    matrix = truncated((expected[0].mT @ expected[1]).numpy(), 2)
    np.testing.assert_allclose((u.mT @ v).numpy(), matrix, rtol=0, atol=1e-13)


def test_derivatives_up_to_the_fourth_order_are_those_of_the_decomposition() -> None:
    left, right = factors(1, 4, 6, seed=1)
    toward_left, toward_right = factors(1, 4, 6, seed=2)
    weight = factors(1, 6, 6, seed=3)[0]

    def by_reduction(t: Tensor) -> Tensor:
        u, v = reduce_rank(left + t * toward_left, right + t * toward_right, 2)
        return (weight * (u.mT @ v)).sum()

    def by_decomposition(t: Tensor) -> Tensor:
        matrix = (left + t * toward_left).mT @ (right + t * toward_right)
        # Zero singular values have no derivatives of their own: work in bases of both spans.
        rows = torch.linalg.qr((right + t * toward_right).mT).Q
        columns = torch.linalg.qr((left + t * toward_left).mT).Q
        u, sizes, v = torch.linalg.svd(columns.mT @ matrix @ rows, full_matrices=False)
        product = columns @ (u[..., :2] * sizes[..., None, :2]) @ v[..., :2, :] @ rows.mT
        return (weight * product).sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    one, other = by_reduction(t), by_decomposition(t)
    for _ in range(5):
        # Each order divides rounding by gaps of size one once more.
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
        (one,) = torch.autograd.grad(one, t, create_graph=True)
        (other,) = torch.autograd.grad(other, t, create_graph=True)


@pytest.mark.parametrize("terms", [0, 1, 3])
def test_derivatives_are_finite_where_singular_values_are_equal(terms: int) -> None:
    # Zero updates, or as many equal ones.
    left = torch.zeros(2, 4, 6, dtype=torch.float64)
    left[:, :terms] = torch.eye(6, dtype=torch.float64)[:terms]
    right = torch.eye(6, dtype=torch.float64)[:4].expand(2, 4, 6).clone()
    left.requires_grad_()
    right.requires_grad_()
    u, v = reduce_rank(left, right, 2)
    for gradient in torch.autograd.grad((u.mT @ v).square().sum(), (left, right)):
        assert bool(torch.isfinite(gradient).all())
