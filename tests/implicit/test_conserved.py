"""Equations with a conserved quantity, of rank n − 1, against closed forms and pseudo-inverses."""

from __future__ import annotations

import implicitly as im
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

D = torch.float64


def network(z: Tensor, k: Tensor) -> Tensor:
    """Rates of A ⇌ B and 2 B ⇌ C, which conserve a + b + 2 c."""
    a, b, c = z.unbind(-1)
    first, second = k[0] * a - k[1] * b, k[2] * b**2 - k[3] * c
    return torch.stack((-first, first - 2 * second, second), dim=-1)


def closed(z: Tensor, k: Tensor, total: Tensor) -> Tensor:
    """The same, with the conserved amount in place of the last rate, which follows from the others."""
    amount = z[..., 0] + z[..., 1] + 2 * z[..., 2] - total
    return torch.cat((network(z, k)[..., :2], amount.unsqueeze(-1)), dim=-1)


def equilibrium(k: Tensor, total: Tensor) -> Tensor:
    """The closed form: with b = p a and c = s a² the amount is a quadratic in a."""
    p = k[0] / k[1]
    s = k[2] / k[3] * p**2
    a = (-(1 + p) + torch.sqrt((1 + p) ** 2 + 8 * s * total)) / (4 * s)
    return torch.stack((a, p * a, s * a**2))


K, TOTAL = torch.tensor([2.0, 1.0, 3.0, 1.5], dtype=D), torch.tensor(4.0, dtype=D)


def test_a_conserved_amount_as_an_equation_makes_derivatives_exact() -> None:
    k, total = K.clone().requires_grad_(), TOTAL.clone().requires_grad_()

    def solved(k: Tensor, total: Tensor) -> Tensor:
        return im.root(closed, torch.ones(3, dtype=D), k, total).value

    torch.testing.assert_close(solved(k, total), equilibrium(k, total), rtol=1e-10, atol=0)
    jacobian = torch.func.jacrev(solved, (0, 1))(K, TOTAL)
    expected = torch.func.jacrev(equilibrium, (0, 1))(K, TOTAL)
    torch.testing.assert_close(jacobian, expected, rtol=1e-9, atol=1e-12)
    assert gradcheck(solved, (k, total))


def test_without_it_the_default_derivative_is_an_error_that_names_the_way_out() -> None:
    k = K.clone().requires_grad_()
    z = im.root(network, torch.ones(3, dtype=D), k).value
    torch.testing.assert_close(network(z, k), torch.zeros(3, dtype=D), rtol=0, atol=1e-9)
    with pytest.raises(im.SolveError, match=r"gradient=MinimumNorm\(\)"):
        z[0].backward()


def test_the_derivative_of_minimum_norm_is_that_of_the_pseudo_inverse() -> None:
    k = K.clone().requires_grad_()
    z = im.root(network, torch.ones(3, dtype=D), k, gradient=im.MinimumNorm()).value
    found = torch.stack([torch.autograd.grad(entry, k, retain_graph=True)[0] for entry in z])
    by_z, by_k = torch.func.jacrev(network, (0, 1))(z.detach(), K)
    # The third singular value is zero but for rounding.
    expected = -torch.linalg.pinv(by_z, rtol=1e-10) @ by_k
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_pressure_up_to_a_constant_has_the_derivative_without_a_constant() -> None:
    """Poisson's equation with no flow through the ends: a constant may be added to the pressure."""
    n = 8
    laplace = 2 * torch.eye(n, dtype=D) - torch.eye(n, dtype=D).roll(1, 0)
    laplace = laplace - torch.eye(n, dtype=D).roll(-1, 0)
    laplace[0, 0] = laplace[-1, -1] = 1.0
    laplace[0, -1] = laplace[-1, 0] = 0.0
    flow = torch.linspace(-1, 1, n, dtype=D).requires_grad_()

    def balance(p: Tensor, flow: Tensor) -> Tensor:
        return laplace @ p - (flow - flow.mean())

    p = im.least_squares(balance, torch.zeros(n, dtype=D), flow, gradient=im.MinimumNorm()).value
    inverse = torch.linalg.pinv(laplace, rtol=1e-10)
    torch.testing.assert_close(p.detach(), inverse @ flow.detach(), rtol=1e-9, atol=1e-10)
    p[0].backward()
    # The pseudo-inverse takes the mean away itself.
    torch.testing.assert_close(flow.grad, inverse[0], rtol=1e-9, atol=1e-10)
