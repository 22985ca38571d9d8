"""Derivatives that autograd maps: `is_grads_batched`, `vectorize=True`, and the checks of `gradcheck`."""

import implicitly as im
import pytest
import torch
from torch.autograd import functional, gradcheck

D = torch.float64
X = torch.tensor([[0.5, 0.9], [0.3, 0.7], [0.1, 0.2]], dtype=D)
CLOSE = 1e-9


def solve(x, **options):
    options.setdefault("stopping", im.Stopping(rtol=1e-12))
    start = torch.ones_like(x)
    return im.fixed_point(lambda z, x: torch.cos(x * z), start, x, batch_dims=1, **options).value


def jacobian():
    """`∂z/∂x` of `z = cos(x z)`, by the implicit function theorem; it is diagonal."""
    z = solve(X)
    slope = -z * torch.sin(X * z) / (1 + X * torch.sin(X * z))
    return torch.diag(slope.flatten()).reshape(3, 2, 3, 2)


def hessian():
    x = X.clone().requires_grad_()
    first = torch.autograd.grad(solve(x).sum(), x, create_graph=True)[0].flatten()
    rows = [torch.autograd.grad(entry, x, retain_graph=True)[0] for entry in first]
    return torch.stack(rows).reshape(3, 2, 3, 2)


UNITS = torch.eye(6, dtype=D).reshape(6, 3, 2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient": im.Unrolled()},
        {"gradient": im.Phantom(steps=60)},
        {"gradient": im.Neumann(terms=60)},
    ],
    ids=str,
)
def test_a_batch_of_cotangents_gives_the_jacobian(options):
    x = X.clone().requires_grad_()
    (got,) = torch.autograd.grad(solve(x, **options), x, UNITS, is_grads_batched=True)
    assert torch.allclose(got.reshape(3, 2, 3, 2), jacobian(), atol=CLOSE)


def test_a_batch_of_cotangents_of_a_finite_iteration():
    x, gradient = X.clone().requires_grad_(), im.Reversible(steps=6)
    z = solve(x, gradient=gradient, on_failure="accept")
    (got,) = torch.autograd.grad(z, x, UNITS, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(z, x, unit, retain_graph=True)[0] for unit in UNITS]
    assert torch.allclose(got, torch.stack(one_by_one), rtol=CLOSE)


def test_a_batch_of_cotangents_with_a_random_function():
    """The mask is the one of the call, also where random numbers are refused."""
    cell = torch.nn.Dropout(0.5)
    layer = im.ImplicitLayer(lambda z, x: 0.5 * cell(torch.tanh(z)) + x)
    x = X.clone().requires_grad_()
    z = layer(x)
    (got,) = torch.autograd.grad(z, x, UNITS, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(z, x, unit, retain_graph=True)[0] for unit in UNITS]
    assert torch.allclose(got, torch.stack(one_by_one), rtol=CLOSE)


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_vectorized_jacobians_and_hessians(strategy):
    got = functional.jacobian(solve, X, vectorize=True, strategy=strategy)
    assert torch.allclose(got, jacobian(), atol=CLOSE)
    got = functional.hessian(
        lambda x: solve(x).sum(), X, vectorize=True, outer_jacobian_strategy=strategy
    )
    assert torch.allclose(got, hessian(), atol=1e-8)


def test_gradcheck_of_batched_derivatives():
    x = X[:1].clone().requires_grad_()
    assert gradcheck(
        solve,
        (x,),
        check_batched_grad=True,
        check_forward_ad=True,
        check_batched_forward_grad=True,
    )


def test_two_axes_at_once_name_torch_func():
    x = X.clone().requires_grad_()
    z = solve(x)

    def rows(units):
        return torch.autograd.grad(z, x, units, is_grads_batched=True, retain_graph=True)[0]

    two = UNITS.expand(2, 6, 3, 2)
    with pytest.raises(RuntimeError, match="torch.func"):
        torch._vmap_internals._vmap(rows)(two)
