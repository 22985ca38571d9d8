"""Affine recurrences: the scan against the loop and against exact arithmetic."""

from fractions import Fraction

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from implicitly.solvers.causal.affine_scan import affine_scan
from implicitly.solvers.causal.bidiagonal import norm_bound
from torch import Tensor


def loop(slopes: Tensor, offsets: Tensor) -> Tensor:
    """`δ_t = A_t δ_{t−1} + b_t`, one after the other."""
    state, states = torch.zeros_like(offsets[:, 0]), []
    for t in range(offsets.shape[1]):
        state = torch.einsum("bij,bj->bi", slopes[:, t], state) + offsets[:, t]
        states.append(state)
    return torch.stack(states, dim=1)


@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 70),
    d=st.integers(1, 4),
    size=st.sampled_from([0.0, 0.5, 1.0, 1.2]),
    seed=st.integers(0, 10**6),
)
def test_the_scan_is_the_loop(batch, length, d, size, seed):
    generator = torch.Generator().manual_seed(seed)
    slopes = torch.randn(batch, length, d, d, generator=generator, dtype=torch.float64)
    slopes *= size / torch.linalg.matrix_norm(slopes, 2)[..., None, None]
    offsets = torch.randn(batch, length, d, generator=generator, dtype=torch.float64)
    # Each product of matrices and each sum is off by at most (d + 1) ε of the product of norms, and
    # `δ_t` is a sum of t products of at most t factors each: majorised by the scalar recurrence.
    bound = loop(
        torch.full((1, length, 1, 1), size, dtype=torch.float64),
        torch.linalg.vector_norm(offsets, dim=2).amax(0).reshape(1, length, 1),
    )
    allowed = (d + 2) ** 2 * length * torch.finfo(torch.float64).eps * bound.amax()
    assert float((affine_scan(slopes, offsets) - loop(slopes, offsets)).abs().max()) <= allowed


@given(length=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_diagonal_slopes_are_matrices_with_that_diagonal(length, seed):
    generator = torch.Generator().manual_seed(seed)
    slopes = torch.rand(2, length, 3, generator=generator, dtype=torch.float64)
    offsets = torch.randn(2, length, 3, generator=generator, dtype=torch.float64)
    expected = affine_scan(torch.diag_embed(slopes), offsets)
    torch.testing.assert_close(affine_scan(slopes, offsets), expected, rtol=1e-14, atol=1e-14)


def test_whole_numbers_are_exact():
    slopes, offsets = torch.arange(1.0, 9.0).double() % 3, torch.arange(8.0).double()
    state, expected = Fraction(0), []
    for a, b in zip(slopes.tolist(), offsets.tolist(), strict=True):
        state = Fraction(a) * state + Fraction(b)
        expected.append(float(state))
    assert affine_scan(slopes[None, :, None], offsets[None, :, None]).flatten().tolist() == expected


def test_nothing_flows_backwards_even_from_numbers_that_are_not_finite():
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(1, 50, 3, 3, generator=generator)
    offsets = torch.randn(1, 50, 3, generator=generator)
    before = affine_scan(slopes, offsets)
    for cut in (1, 17, 32, 49):
        changed, moved = slopes.clone(), offsets.clone()
        changed[:, cut:], moved[:, cut:] = torch.nan, torch.inf
        assert torch.equal(affine_scan(changed, moved)[:, :cut], before[:, :cut])


@given(
    d=st.integers(1, 12),
    kind=st.sampled_from(["random", "rotation", "one", "zero"]),
    seed=st.integers(0, 10**6),
)
def test_the_bound_on_norms_is_one_and_close(d, kind, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    if kind == "rotation":
        matrix = torch.linalg.qr(matrix).Q
    elif kind == "one":
        matrix = torch.outer(matrix[0], matrix[:, 0])
    elif kind == "zero":
        matrix = 0 * matrix
    exact, bound = float(torch.linalg.matrix_norm(matrix, 2)), float(norm_bound(matrix[None, None]))
    assert exact * (1 - 1e-12) <= bound <= exact * d ** (1 / 32) * (1 + 1e-12)


@pytest.mark.parametrize("length", [1, 2, 3, 1000, 1023])
def test_matrices_are_multiplied_fewer_times_than_there_are_steps(length, monkeypatch):
    products = 0
    multiply = Tensor.__matmul__

    def counting(left, right):
        nonlocal products
        if left.shape[-2:] == right.shape[-2:]:
            products += left.shape[1]
        return multiply(left, right)

    monkeypatch.setattr(Tensor, "__matmul__", counting)
    affine_scan(torch.rand(1, length, 2, 2), torch.rand(1, length, 2))
    assert products < length
