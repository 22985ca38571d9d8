"""Attention by a kernel where no derivative is wanted, equal to matrix products, which have them all."""

import pytest
import torch
from implicitly.models.checks import check_tokens
from implicitly.models.transformer import attention
from implicitly.models.transformer.attention import relative_attention, visible
from torch.autograd import forward_ad


def given(dtype, queries=5, keys=9):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, queries, 4), (2, 3, keys, 4), (2, 3, keys, 4), (3, keys, 4), (3, 4), (3, 4)]
    tensors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return (*tensors, visible(queries, keys, 6, torch.device("cpu")))


@pytest.fixture
def calls(monkeypatch):
    """The number of calls of the kernel, as the length of a list."""
    made, kernel = [], attention.scaled_dot_product_attention

    def counted(*arguments, **options):
        made.append(None)
        return kernel(*arguments, **options)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", counted)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_is_equal_to_matrix_products_up_to_rounding(calls, dtype):
    arguments = given(dtype)
    with torch.no_grad():
        fast = relative_attention(*arguments)
    assert len(calls) == 1
    leaf = arguments[0].clone().requires_grad_()
    slow = relative_attention(leaf, *arguments[1:])
    assert len(calls) == 1
    # Sums of 9 terms, of scores and then of values, each of size one.
    assert (fast - slow).abs().max() < 32 * torch.finfo(dtype).eps * slow.abs().max()


def test_derivatives_of_every_kind_go_through_matrix_products(calls):
    q, *others = given(torch.float64)

    def function(x):
        return relative_attention(x, *others)

    tangent = torch.ones_like(q)
    with torch.no_grad():
        by_transform = torch.func.jvp(function, (q,), (tangent,))[1]
        with forward_ad.dual_level():
            dual = function(forward_ad.make_dual(q, tangent))
            by_dual = forward_ad.unpack_dual(dual).tangent
    assert torch.autograd.gradgradcheck(lambda x: function(x).sum(), q.clone().requires_grad_())
    assert not calls
    step = 1e-6
    with torch.no_grad():
        difference = (function(q + step * tangent) - function(q - step * tangent)) / (2 * step)
    # Central differences: the third derivative by step², and rounding by eps / step.
    for found in (by_transform, by_dual):
        assert (found - difference).abs().max() < 1e-8


def test_dropout_of_weights_goes_through_matrix_products(calls):
    arguments = given(torch.float32)
    mask = torch.zeros(2, 3, 5, 9)
    with torch.no_grad():
        assert relative_attention(*arguments, mask).abs().max() == 0
    assert not calls


class Elsewhere(torch.Tensor):
    """Tokens that say they are on an accelerator, and refuse to be waited for."""

    @property
    def device(self):
        return torch.device("cuda")

    def __int__(self):
        raise AssertionError("a wait")

    def __bool__(self):
        raise AssertionError("a wait")


def test_tokens_on_an_accelerator_are_checked_without_waiting_for_it():
    tokens = torch.zeros(2, 3, dtype=torch.int64).as_subclass(Elsewhere)
    assert check_tokens("tokens", tokens, 1) is tokens
    with pytest.raises(RuntimeError, match="tokens must lie between 0 and 4"):
        check_tokens("tokens", tokens + 5, 5)
