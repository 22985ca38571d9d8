"""Auxiliary outputs: evaluated once at the solution, differentiable through it, in every mode."""

import pytest
import torch
from implicitly import (
    Compiled,
    FixedPointIteration,
    GraphLayer,
    ImplicitLayer,
    Phantom,
    Stopping,
    Unrolled,
    fixed_point,
    root,
)
from implicitly.verification import assert_gradients
from torch.autograd import gradcheck, gradgradcheck

TIGHT = Stopping(rtol=1e-13)


def square(z, x):
    """Zero at √x; beside it `z³ x`, which is `x^{5/2}` there."""
    return z**2 - x, {"power": z**3 * x, "name": "square", "z": (z,)}


def power_at_root(x):
    ones = torch.ones_like(x)
    return root(square, ones, x, has_aux=True, batch_dims=x.ndim, stopping=TIGHT).aux["power"]


X = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)


def test_the_auxiliary_output_is_the_one_at_the_solution():
    solution = root(square, torch.ones_like(X), X, has_aux=True)
    assert torch.allclose(solution.value, X.sqrt())
    assert torch.allclose(solution.aux["power"], X**2.5)
    assert solution.aux["name"] == "square"
    assert torch.equal(solution.aux["z"][0], solution.value)
    assert root(lambda z, x: square(z, x)[0], torch.ones_like(X), X).aux is None


def test_derivatives_go_through_the_solution_to_second_order():
    x = X.clone().requires_grad_()
    (first,) = torch.autograd.grad(power_at_root(x).sum(), x)
    assert torch.allclose(first, 2.5 * X**1.5)
    assert gradcheck(power_at_root, (x,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(power_at_root, (x,))


def test_transforms_of_torch_func():
    second = 2.5 * 1.5 * X**0.5
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(jacobian(power_at_root)(X), torch.diag(2.5 * X**1.5))
    assert torch.allclose(torch.func.vmap(power_at_root)(X), X**2.5)
    grad = torch.func.grad(lambda x: power_at_root(x))
    assert torch.allclose(torch.func.vmap(torch.func.grad(grad))(X), second)
    assert torch.allclose(torch.func.jvp(power_at_root, (X,), (X,))[1], 2.5 * X**2.5)


def test_no_derivative_where_none_is_recorded():
    x = X.clone().requires_grad_()
    with torch.no_grad():
        assert not power_at_root(x).requires_grad
    with torch.inference_mode():
        assert torch.allclose(power_at_root(x), X**2.5)
    solution = root(square, torch.ones_like(X), x, has_aux=True)
    assert solution.aux["power"].requires_grad
    detached = solution.detach().aux
    assert not detached["power"].requires_grad
    assert detached["name"] == "square"


def test_it_is_evaluated_once_more_than_without():
    calls = []

    def counted(z, x):
        calls.append(z)
        return square(z, x)

    root(lambda z, x: counted(z, x)[0], torch.ones_like(X), X)
    without = len(calls)
    root(counted, torch.ones_like(X), X, has_aux=True)
    assert len(calls) == 2 * without + 1


@pytest.mark.parametrize("returned", [lambda z: z, lambda z: [z, z], lambda z: (z, z, z)])
@pytest.mark.parametrize("call", [root, fixed_point])
def test_anything_but_a_pair_is_named(call, returned):
    with pytest.raises(TypeError, match=r"must return a pair, \(residual, auxiliary output\)"):
        call(returned, torch.ones(3), has_aux=True)


def test_a_pair_without_the_option_names_the_option():
    with pytest.raises(TypeError, match="has_aux=True if the second is an auxiliary output"):
        root(square, torch.ones_like(X), X)


def test_has_aux_is_a_truth_value():
    with pytest.raises(TypeError, match="has_aux must be True or False"):
        root(square, torch.ones_like(X), X, has_aux="yes")


def test_a_function_that_writes_to_its_unknown():
    def halved(z, x):
        z.mul_(0.5).add_(x)
        return z, z.square()

    x = X.clone().requires_grad_()
    solution = fixed_point(halved, torch.zeros_like(X), x, has_aux=True, stopping=TIGHT)
    (gradient,) = torch.autograd.grad(solution.aux.sum(), x)  # (2x)² has the derivative 8x.
    assert torch.allclose(solution.value, 2 * X)
    assert torch.allclose(gradient, 8 * X)


def test_a_function_that_differentiates_itself():
    def slope(z):
        energy = ((z - 1.0) ** 2).sum()
        return torch.autograd.grad(energy, z, create_graph=True)[0], energy

    solution = root(slope, torch.zeros(2, dtype=torch.float64), has_aux=True)
    assert not solution.aux.requires_grad
    assert solution.aux.item() < 1e-12


@pytest.mark.parametrize("gradient", [Unrolled(), Phantom(60)])
def test_other_gradient_modes(gradient):
    x = X.clone().requires_grad_()
    solution = fixed_point(
        lambda z, x: (0.5 * z + x, z * z),
        torch.zeros_like(X),
        x,
        solver=FixedPointIteration(),
        gradient=gradient,
        has_aux=True,
    )
    (found,) = torch.autograd.grad(solution.aux.sum(), x)
    assert torch.allclose(found, 8 * X, rtol=1e-7)


class Cell(torch.nn.Module):
    """A contraction with dropout and a buffer that each call changes; beside its value its own residual."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4, dtype=torch.float64)
        torch.nn.init.orthogonal_(self.linear.weight, gain=0.5)
        self.dropout = torch.nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, z, x):
        self.calls += 1
        value = torch.tanh(self.linear(self.dropout(z)) + x)
        return value, (value - z, self.linear(z))


def test_a_layer_returns_a_pair_of_one_mask_and_moves_buffers_once(seeded):
    layer = ImplicitLayer(Cell(), has_aux=True)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    z, (residual, hidden) = layer(x)
    # With another mask the residual would be of the size of z.
    assert residual.abs().max() < 1e-6
    assert torch.equal(hidden, layer.f.linear(z))
    assert layer.f.calls == 1
    assert not layer.solution.aux[1].requires_grad
    hidden.sum().backward()
    assert layer.f.linear.weight.grad.abs().max() > 0
    assert x.grad.abs().min() > 0


@pytest.mark.parametrize("form", ["fixed_point", pytest.param("root", marks=pytest.mark.long)])
def test_a_layer_is_verified(form, seeded):
    class Counted(torch.nn.Module):
        """A contraction, or its residual, with a number of no derivative in the auxiliary output."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 3, dtype=torch.float64)
            torch.nn.init.orthogonal_(self.linear.weight, gain=0.5)

        def forward(self, z, x):
            value = torch.tanh(self.linear(z) + x)
            return value - z if form == "root" else value, {
                "square": z * z + x,
                "one": torch.ones(()),
            }

    layer = ImplicitLayer(Counted(), form, has_aux=True)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    report = assert_gradients(layer, (x,), effort="full")
    assert not any("implicit reference" in line or "raised" in line for line in report.skipped())


class Halved(torch.nn.Module):
    def forward(self, z, x):
        return 0.5 * z + x, z * z


def test_compiled_solves(seeded):
    layer = ImplicitLayer(Halved(), solver=Compiled(FixedPointIteration()), has_aux=True)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for _ in range(3):
        _, square = layer(x)
        assert torch.allclose(square, 4 * x**2)
        (gradient,) = torch.autograd.grad(square.sum(), x)
        assert torch.allclose(gradient, 8 * x)
    with torch.no_grad():
        for _ in range(4):
            assert torch.allclose(layer(x)[1], 4 * x**2)
    with pytest.raises(TypeError, match="a part of a graph without has_aux"):
        GraphLayer(layer, x)
