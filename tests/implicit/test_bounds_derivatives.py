"""Derivatives of solutions between bounds: active bounds held fixed, in every mode and by every transform."""

from __future__ import annotations

from typing import Any

import implicitly as im
import pytest
import torch
from bounded_equations import D, X, logarithm, ones, pulled
from implicitly.verification import Verdict, verify
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

TIGHT = im.Stopping(rtol=1e-12)


def pulled_minimum(x: Tensor, upper: Any = 2.0, **options: Any) -> Tensor:
    return im.minimise(pulled, ones(3), x, bounds=(0.0, upper), stopping=TIGHT, **options).value


def test_derivatives_of_a_root_pass_gradcheck_and_verify() -> None:
    def solved(x: Tensor) -> Tensor:
        return im.root(logarithm, ones(2), x, bounds=(0.0, None), stopping=TIGHT).value

    x = X.clone().requires_grad_()
    assert gradcheck(solved, (x,))
    assert gradgradcheck(solved, (x,))
    assert verify(solved, (x,), residual=logarithm).verdict is Verdict.CORRECT


def test_derivatives_on_active_bounds_hold_them_fixed() -> None:
    x = torch.tensor([1.0, 0.9], dtype=D, requires_grad=True)
    z = pulled_minimum(x)
    assert z[1:].tolist() == [2.0, 0.0]
    # With b = 2 the first unknown is the root of its own derivative.
    (slope,) = torch.autograd.grad(z[0], x)
    a = z[0].item()
    curvature = 2 + 1.2 * a**2
    torch.testing.assert_close(
        slope, torch.tensor([2.0, -2.0], dtype=D) / curvature, rtol=1e-9, atol=0
    )
    assert gradcheck(pulled_minimum, (x,))
    assert gradgradcheck(pulled_minimum, (x,))
    assert verify(pulled_minimum, (x,)).verdict is Verdict.CORRECT


def test_derivatives_with_respect_to_bounds_are_those_of_the_reduced_equation() -> None:
    x = torch.tensor([1.0, 0.9], dtype=D, requires_grad=True)
    upper = torch.tensor([9.0, 2.0, 3.0], dtype=D, requires_grad=True)
    assert gradcheck(pulled_minimum, (x, upper))
    assert gradgradcheck(pulled_minimum, (x, upper))
    (slope,) = torch.autograd.grad(pulled_minimum(x, upper)[1], upper)
    assert slope.tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-12)


def test_transforms_of_minimisers_on_bounds_agree_with_each_other() -> None:
    xs = torch.tensor([[1.0, 0.9], [0.5, 1.5], [2.0, 0.2]], dtype=D)
    reverse = torch.stack([torch.func.jacrev(pulled_minimum)(x) for x in xs])
    torch.testing.assert_close(torch.vmap(torch.func.jacrev(pulled_minimum))(xs), reverse)
    torch.testing.assert_close(torch.vmap(torch.func.jacfwd(pulled_minimum))(xs), reverse)
    hessian = torch.func.hessian(lambda x: pulled_minimum(x)[0])(xs[0])
    step = 1e-4
    moved = [torch.func.grad(lambda x: pulled_minimum(x)[0])(xs[0] + s * e * step)
             for e in torch.eye(2, dtype=D) for s in (1.0, -1.0)]  # fmt: skip
    differences = torch.stack([(moved[0] - moved[1]), (moved[2] - moved[3])]) / (2 * step)
    torch.testing.assert_close(hessian, differences, rtol=1e-5, atol=1e-7)


def test_an_unknown_between_equal_bounds_does_not_move_with_arguments() -> None:
    def fixed(x: Tensor) -> Tensor:
        return im.minimise(lambda z, x: (z - x) ** 2, ones(1).sum(), x, bounds=(1.0, 1.0)).value

    # Not even where the gradient that the bounds hold back is zero.
    for x in (1.0, 2.0):
        assert torch.func.grad(fixed)(torch.tensor(x, dtype=D)).item() == 0.0


def test_a_bound_that_does_not_hold_its_unknown_back_is_said_to_be_one_sided() -> None:
    def solved(x: float) -> im.Solution:
        target = torch.tensor([x, 1.0], dtype=D)
        return im.minimise(lambda z: (z - target).square().sum(), ones(2), bounds=(0.0, None))

    assert bool(solved(0.0).bounds.one_sided)
    assert not bool(solved(-1e-3).bounds.one_sided)
    assert not bool(solved(1e-3).bounds.one_sided)


@pytest.mark.parametrize(
    ("gradient", "exact"),
    [
        (im.Exact(), True), (im.Unrolled(), True), (im.Neumann(400), True), (im.Phantom(3), False),
        (im.JacobianFree(), False),
    ],
    ids=str,
)  # fmt: skip
def test_gradient_modes_of_roots_work_within_bounds(gradient: im.Gradient, exact: bool) -> None:
    def F(z: Tensor, x: Tensor) -> Tensor:
        return 0.5 * (z**2 - x)

    x = torch.tensor([0.8, 1.3], dtype=D, requires_grad=True)
    z = im.root(F, ones(2), x, bounds=(0.0, None), gradient=gradient, stopping=TIGHT).value
    (slope,) = torch.autograd.grad(z.sum(), x)
    assert bool(torch.isfinite(slope).all())
    if exact:
        torch.testing.assert_close(slope, 0.5 / x.detach().sqrt(), rtol=1e-8, atol=0)


def test_modes_of_least_squares_respect_active_bounds() -> None:
    t = torch.linspace(0, 1, 6, dtype=D)

    def fitted(y: Tensor, gradient: im.Gradient) -> Tensor:
        return im.least_squares(
            lambda z, y: z[0] + z[1] * t - y, ones(2), y, bounds=(0.0, None), gradient=gradient
        ).value

    y = (1 - t).requires_grad_()  # The slope would be −1, and is held at zero.
    z = fitted(y, im.Exact())
    assert z.tolist() == pytest.approx([0.5, 0.0], abs=1e-9)
    (expected,) = torch.autograd.grad(z[0], y)
    torch.testing.assert_close(expected, torch.full((6,), 1 / 6, dtype=D))
    (least,) = torch.autograd.grad(fitted(y, im.MinimumNorm())[0], y)
    torch.testing.assert_close(least, expected)
    (approximate,) = torch.autograd.grad(fitted(y, im.GaussNewtonApproximation())[0], y)
    torch.testing.assert_close(approximate, expected)
