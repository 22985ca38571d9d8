"""Tensors that a layer's function closes over."""

import pytest
import torch
from implicitly import (
    CapturedTensorError,
    ImplicitLayer,
    fixed_point,
)

from .cells import TIGHT, inputs

pytestmark = pytest.mark.usefixtures("seeded")


def test_leaf_tensors_in_a_closure_get_their_gradients():
    weight = (0.5 * torch.linalg.qr(inputs(4))[0]).requires_grad_()
    x = inputs().requires_grad_()
    captured = ImplicitLayer(lambda z, x: torch.tanh(z @ weight + x), stopping=TIGHT)
    mine = torch.autograd.grad(captured(x).square().sum(), (weight, x))
    z = fixed_point(
        lambda z, w, x: torch.tanh(z @ w + x), torch.zeros_like(x), weight, x,
        batch_dims=1, stopping=TIGHT,
    ).value  # fmt: skip
    theirs = torch.autograd.grad(z.square().sum(), (weight, x))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_captured_leaves_have_second_derivatives():
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    z = fixed_point(lambda z: weight * z + 1, torch.zeros((), dtype=torch.float64)).value
    (first,) = torch.autograd.grad(z, weight, create_graph=True)
    (second,) = torch.autograd.grad(first, weight)
    # z = 1/(1 − w): z' = 1/(1 − w)² = 4, z'' = 2/(1 − w)³ = 16.
    torch.testing.assert_close(first.detach(), torch.tensor(4.0).double(), rtol=1e-8, atol=0)
    torch.testing.assert_close(second, torch.tensor(16.0).double(), rtol=1e-8, atol=0)


def test_a_leaf_reached_both_as_argument_and_through_the_closure_counts_both_ways():
    a = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    z = fixed_point(lambda z, b: a * z + b * z + 1, torch.zeros_like(a), a).value
    (gradient,) = torch.autograd.grad(z, a)
    # z = 1/(1 − 2a): z' = 2/(1 − 2a)² = 8.
    torch.testing.assert_close(gradient, torch.tensor(8.0).double(), rtol=1e-8, atol=0)


def test_a_captured_tensor_that_was_computed_is_an_error_that_names_the_remedy():
    weight = inputs(4).requires_grad_()
    scaled = 0.1 * weight
    with pytest.raises(CapturedTensorError, match="MulBackward0.*Pass it as an argument"):
        fixed_point(lambda z, x: torch.tanh(z @ scaled + x), torch.zeros(5, 4).double(), inputs())


def test_a_captured_tensor_that_vmap_maps_is_an_error():
    def each(x):
        return fixed_point(lambda z: 0.5 * z + x, torch.zeros((), dtype=torch.float64)).value

    with pytest.raises(CapturedTensorError, match="vmap"):
        torch.func.vmap(each)(inputs()[:, 0])


def test_a_captured_tensor_with_a_forward_tangent_is_an_error():
    def value(x):
        return fixed_point(lambda z: 0.5 * z + x, torch.zeros((), dtype=torch.float64)).value

    one = torch.ones((), dtype=torch.float64)
    with pytest.raises(CapturedTensorError, match="tangent"):
        torch.func.jvp(value, (one,), (one,))


def test_a_captured_tensor_that_grad_transforms_is_not_lost():
    one = torch.ones((), dtype=torch.float64)

    def value(x):
        return fixed_point(lambda z: 0.5 * z + x, torch.zeros((), dtype=torch.float64)).value

    # Either the gradient is right (2) or it is an error: never silently zero.
    try:
        found = torch.func.grad(value)(one)
    except CapturedTensorError:
        return
    torch.testing.assert_close(found, 2 * one, rtol=1e-9, atol=0)
