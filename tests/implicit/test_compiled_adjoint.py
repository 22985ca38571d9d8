"""Adjoints of small compiled systems in one pass of compiled code, beside dense algebra."""

from typing import Any

import implicitly as im
import numba
import numpy as np
import pytest
import torch
from implicitly.implicit import rule
from implicitly.implicit.compiled.compiled_adjoint import compiled_adjoint
from torch import Tensor

N = 3


@numba.njit
def mixed(z: Any, p: Any, out: Any) -> None:
    """Three coupled equations, of which unknowns and rows have units that differ by many orders."""
    a, b, c = z[0] * 1e6, z[1], z[2] * 1e-8
    out[0] = 1e-9 * (4 * a + 0.3 * b * c - p[0])
    out[1] = 3 * b + np.sin(a) - p[1]
    out[2] = 1e7 * (5 * c + 0.1 * a * b - p[2] * p[0])


@numba.njit
def contraction(z: Any, p: Any, out: Any) -> None:
    out[0] = 0.4 * np.sin(z[1]) + p[0]
    out[1] = 0.3 * np.cos(z[0]) * p[1]


@numba.njit
def double(z: Any, p: Any, out: Any) -> None:
    out[0] = (z[0] - p[0]) * (z[0] - p[0])


MIXED, CONTRACTION, DOUBLE = (
    im.NumbaEquation(mixed, 3),
    im.NumbaEquation(contraction, 2),
    im.NumbaEquation(double, 1),
)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each adjoint was solved in compiled code."""
    found: list[bool] = []

    def seen(*args: Any) -> Any:
        result = compiled_adjoint(*args)
        found.append(result is not None)
        return result

    monkeypatch.setattr(rule, "compiled_adjoint", seen)
    return found


def parameters(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 1 + torch.rand(*shape, generator=generator, dtype=torch.float64)


def in_torch(z: Tensor, p: Tensor) -> Tensor:
    a, b, c = z[0] * 1e6, z[1], z[2] * 1e-8
    rows = (
        1e-9 * (4 * a + 0.3 * b * c - p[0]),
        3 * b + torch.sin(a) - p[1],
        1e7 * (5 * c + 0.1 * a * b - p[2] * p[0]),
    )
    return torch.stack(rows)


def test_gradients_in_mixed_units_are_right_in_each_entry(taken: list[bool]) -> None:
    p = parameters(50, 3).requires_grad_()
    z0 = torch.zeros(50, 3, dtype=torch.float64)
    z = im.root(MIXED, z0, p, batch_dims=1).value
    weights = torch.tensor([1.0, 1e-6, 1e-14], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * z).sum(), p)
    by_z, by_p = torch.func.vmap(torch.func.jacrev(in_torch, argnums=(0, 1)))(z.detach(), p)
    units = torch.tensor([1e-6, 1.0, 1e8], dtype=torch.float64)
    # In the units of a, b and c and with rows of like size the condition is below 10.
    rows = by_z.abs().amax(2, True)
    adjoint = torch.linalg.solve((by_z * units / rows).mT, -(weights * units).expand(50, 3))
    expected = (by_p / rows).mT @ adjoint.unsqueeze(2)
    torch.testing.assert_close(gradient, expected.squeeze(2), rtol=1e-12, atol=0)
    assert taken == [True]


def test_the_gradient_of_a_fixed_point_is_that_of_the_unrolled_map(taken: list[bool]) -> None:
    p = parameters(20, 2).requires_grad_()
    z0 = torch.zeros(20, 2, dtype=torch.float64)
    stopping = im.Stopping(rtol=1e-13)
    z = im.fixed_point(CONTRACTION, z0, p, batch_dims=1, stopping=stopping).value
    (gradient,) = torch.autograd.grad((z**2).sum(), p)
    unrolled = z0
    for _ in range(60):
        a, b = unrolled.unbind(1)
        unrolled = torch.stack((0.4 * b.sin() + p[:, 0], 0.3 * a.cos() * p[:, 1]), 1)
    (expected,) = torch.autograd.grad((unrolled**2).sum(), p)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-12)
    assert taken == [True]


def test_parameters_that_systems_share_gather_what_each_gives(taken: list[bool]) -> None:
    shared = parameters(3).requires_grad_()
    alone = shared.detach().expand(4, 5, 3).clone().requires_grad_()
    z0 = torch.zeros(4, 5, 3, dtype=torch.float64)
    found = []
    for p in (shared, alone):
        im.root(MIXED, z0, p, batch_dims=2).value.sum().backward()
        assert p.grad is not None
        found.append(p.grad)
    torch.testing.assert_close(found[0], found[1].sum((0, 1)), rtol=1e-13, atol=0)
    assert taken == [True, True]


def test_a_singular_system_is_left_to_the_general_way_which_names_it(taken: list[bool]) -> None:
    p = torch.tensor([[2.0], [3.0]], dtype=torch.float64, requires_grad=True)
    z = im.root(DOUBLE, p.detach(), p, solver=im.NumbaRoot(), batch_dims=1).value
    with pytest.raises(im.SolveError, match="singular"):
        z.sum().backward()
    assert taken == [False]


def test_other_solvers_dtypes_and_orders_of_the_adjoint_go_the_general_way(
    taken: list[bool],
) -> None:
    p = parameters(4, 3).requires_grad_()
    z0 = torch.zeros(4, 3, dtype=torch.float64)
    gradients = []
    for gradient in (im.Exact(), im.Exact(solver=im.DenseLU()), im.JacobianFree()):
        z = im.root(MIXED, z0, p, batch_dims=1, gradient=gradient).value
        gradients.append(torch.autograd.grad(z.sum(), p)[0])
    assert taken == [True]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=0)
    single = p.detach().float().requires_grad_()
    z = im.fixed_point(
        CONTRACTION, torch.zeros(4, 2), single[:, :2].contiguous(), batch_dims=1
    ).value
    z.sum().backward()
    assert taken == [True, False]
    assert single.grad is not None
    with_graph = im.root(MIXED, z0, p, batch_dims=1).value
    torch.autograd.grad(with_graph.sum(), p, create_graph=True)
    assert len(taken) == 2


def test_the_adjoint_says_what_it_took(taken: list[bool]) -> None:
    p = parameters(4, 2).requires_grad_()
    z0 = torch.zeros(4, 2, dtype=torch.float64)
    solution = im.fixed_point(CONTRACTION, z0, p, batch_dims=1)
    solution.value.sum().backward()
    (adjoint,) = solution.adjoints
    # Of numbers near one.
    assert bool((adjoint.residual_norm <= 1e-15).all())
    assert adjoint.counts.vjps == 2
    assert taken == [True]
