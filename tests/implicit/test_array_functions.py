"""Functions of NumPy arrays: solved cheaply, differentiated by differences only where asked for by name."""

from typing import Literal

import numpy as np
import pytest
import torch
from implicitly import (
    Anderson,
    ArrayFunction,
    Broyden,
    ImplicitLayer,
    MissingDerivativeError,
    Newton,
    Status,
    fixed_point,
    root,
)
from implicitly.implicit.arrays.finite_differences import blocks
from implicitly.verification import assert_gradients
from torch.autograd import gradcheck, gradgradcheck

FINITE: Literal["finite differences"] = "finite differences"
X = torch.tensor([2.0, 0.5], dtype=torch.float64)
START = torch.ones(2, dtype=torch.float64)


class Counted:
    """The circle and the cubic of `F`, in arrays, counting its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, z, x):
        assert isinstance(z, np.ndarray)
        assert isinstance(x, np.ndarray)
        self.calls += 1
        return np.array([z[0] ** 2 + z[1] - x[0], z[0] - z[1] ** 3 + x[1]])


def F(z, x):
    return torch.stack([z[0] ** 2 + z[1] - x[0], z[0] - z[1] ** 3 + x[1]])


BOTH = ArrayFunction(Counted(), jacobian=FINITE, arguments=FINITE)


def test_without_a_jacobian_a_solve_takes_few_calls():
    function = Counted()
    solution = root(ArrayFunction(function), START, X)
    assert function.calls <= 13  # Those of Broyden's method on a function that hides its arrays.
    assert solution.converged
    assert torch.allclose(solution.value, root(F, START, X).value, rtol=1e-9)
    assert solution.error.isnan()


def test_with_differences_the_error_is_known():
    function = Counted()
    solution = root(ArrayFunction(function, jacobian=FINITE), START, X)
    assert solution.error < 1e-8
    assert function.calls <= 24


def test_the_work_does_not_depend_on_the_number_of_systems():
    calls = []

    def cubic(z, x):
        calls.append(z.shape)
        return z**3 + z - x

    function = ArrayFunction(cubic, jacobian=FINITE, arguments=FINITE)
    work = []
    for size in (2, 40):
        x = torch.linspace(0.5, 3.0, size, dtype=torch.float64).requires_grad_()
        calls.clear()
        z = root(function, torch.ones_like(x), x, batch_dims=1, solver=Newton()).value
        work.append(len(calls))
        (gradient,) = torch.autograd.grad(z.sum(), x)
        # ε^(2/3) of central differences in float64 is 4e-11.
        assert torch.allclose(gradient, 1 / (3 * z**2 + 1), rtol=1e-9)
    assert abs(work[0] - work[1]) <= 4


def test_first_derivatives_in_both_modes():
    x = X.clone().requires_grad_()

    def value(x):
        return root(BOTH, START, x).value

    assert gradcheck(value, (x,), check_forward_ad=True, check_batched_grad=True)
    own = torch.func.jacrev(lambda x: root(F, START, x).value)(X)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(transform(value)(X), own, rtol=1e-8)
    rows = torch.stack([X, X + 0.2])
    assert torch.allclose(torch.vmap(value)(rows)[1], value(rows[1]))
    mapped = torch.vmap(torch.func.jacrev(value))(rows)
    assert torch.allclose(mapped[0], own, rtol=1e-8)


def test_a_derivative_of_second_order_is_an_error_and_not_zero():
    x = X.clone().requires_grad_()
    with pytest.raises(MissingDerivativeError, match="second order is asked for"):
        gradgradcheck(lambda x: root(BOTH, START, x).value, (x,))
    value = BOTH(START.clone().requires_grad_(), x)
    torch.autograd.grad(value.sum(), x, retain_graph=True)  # Its Jacobian has no graph.
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    with pytest.raises(MissingDerivativeError, match="second order is asked for"):
        torch.autograd.grad(first.sum(), x)
    with pytest.raises(MissingDerivativeError, match="second order is asked for"):
        torch.func.hessian(lambda x: root(BOTH, START, x).value.sum())(X)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (ArrayFunction(Counted()), 'jacobian="finite differences"'),
        (ArrayFunction(Counted(), jacobian=FINITE), 'arguments="finite differences"'),
    ],
)
def test_derivatives_that_nobody_asked_for_are_named(function, named):
    x = X.clone().requires_grad_()
    solution = root(function, START, x)
    with pytest.raises(MissingDerivativeError, match=named):
        solution.value.sum().backward()
    with pytest.raises(MissingDerivativeError, match="is asked for, and the function Counted"):
        torch.func.jacfwd(lambda x: root(function, START, x).value)(X)
    with pytest.raises(MissingDerivativeError, match=named):
        function(START.clone().requires_grad_(), x)
    assert not function(START, X).requires_grad
    with torch.no_grad():
        assert root(function, START, x).converged


def test_a_solver_that_needs_a_jacobian_says_so():
    with pytest.raises(MissingDerivativeError, match="a Jacobian is asked for"):
        root(ArrayFunction(Counted()), START, X, solver=Newton())


def test_products_of_calls_against_torch():
    z, x = START.clone().requires_grad_(), X.clone().requires_grad_()
    assert gradcheck(BOTH, (z, x), check_forward_ad=True, check_batched_grad=True)
    alone = torch.func.jacrev(BOTH)(START, X)
    assert torch.allclose(alone, torch.func.jacrev(F)(START, X), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_central_differences_are_of_second_order(scale):
    at = scale * torch.tensor([[0.3, -2.0], [1.0, 0.7]], dtype=torch.float64)

    def function(z):
        w = z / scale
        return torch.stack([w[:, 0] ** 3 * w[:, 1], torch.exp(w[:, 1])], dim=1)

    found = blocks(function, at, scale) * scale
    w = at / scale
    expected = torch.stack(
        [
            torch.stack([3 * w[:, 0] ** 2 * w[:, 1], w[:, 0] ** 3], dim=1),
            torch.stack([torch.zeros(2, dtype=torch.float64), torch.exp(w[:, 1])], dim=1),
        ],
        dim=1,
    )
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_fixed_points_structures_and_other_dtypes():
    def f(z, rate):
        return {"a": 0.5 * np.cos(z["a"]), "b": 0.3 * z["b"] + rate["r"]}

    start = {"a": torch.zeros(2), "b": torch.zeros(3, dtype=torch.float64)}
    rate = {"r": torch.tensor(0.7, dtype=torch.float64, requires_grad=True)}
    solution = fixed_point(
        ArrayFunction(f, jacobian=FINITE, arguments=FINITE), start, rate, solver=Anderson()
    )
    assert solution.value["a"].dtype == torch.float32
    solution.value["b"].sum().backward()
    assert rate["r"].grad.item() == pytest.approx(3 / 0.7, rel=1e-6)


def test_complex_unknowns():
    c = torch.tensor(3.0 + 4.0j, dtype=torch.complex128, requires_grad=True)
    start = torch.tensor(1.0 + 1.0j, dtype=torch.complex128)
    function = ArrayFunction(lambda z, c: z * z - c, jacobian=FINITE, arguments=FINITE)
    z = root(function, start, c).value
    assert torch.allclose(z, torch.tensor(2.0 + 1.0j, dtype=torch.complex128))
    assert gradcheck(lambda c: root(function, start, c).value, (c,))


def test_systems_without_a_root_and_exceptions_at_trial_points():
    def hard(z):
        if (z > 40).any():
            raise ValueError("outside")
        return np.where(z > 2, np.log(z), z**2 + 1.0)

    with pytest.raises(ValueError, match="outside"):
        root(ArrayFunction(hard), torch.tensor([50.0]), batch_dims=1)
    start = torch.tensor([1.0, 0.5], dtype=torch.float64)
    solution = root(ArrayFunction(hard), start, batch_dims=1, on_failure="accept")
    assert not solution.converged.any()
    assert (solution.status != Status.RUNNING).all()


def test_a_layer_of_an_array_function_is_verified():
    def residual(z, x):
        return z**3 + z - x

    layer = ImplicitLayer(
        ArrayFunction(residual, jacobian=FINITE, arguments=FINITE), "root", solver=Broyden()
    )
    x = torch.linspace(0.5, 2.0, 4, dtype=torch.float64).reshape(2, 2).requires_grad_()
    assert_gradients(layer, (x,), residual=residual)


def test_wrong_values_are_named():
    cases = [
        (lambda z: torch.from_numpy(z), TypeError, "must return arrays, but returned a tensor"),
        (lambda z: "text", TypeError, "must return arrays of numbers"),
        (lambda z: z + 1j, TypeError, "must return real arrays"),
        (lambda z: (z, z), TypeError, "in the structure of z0"),
        (lambda z: z, TypeError, "takes no bfloat16"),
        (lambda z: z[:1], ValueError, "must return the shape of its unknown"),
    ]
    for function, kind, words in cases:
        with pytest.raises(kind, match=words):
            root(ArrayFunction(function), START.bfloat16() if "bfloat16" in words else START)
    with pytest.raises(TypeError, match="function must be callable"):
        ArrayFunction(3)
    with pytest.raises(ValueError, match="jacobian must be"):
        ArrayFunction(abs, jacobian="complex step")
    with pytest.raises(ValueError, match="typical must be a number > 0"):
        ArrayFunction(abs, typical=0.0)
    with pytest.raises(TypeError, match="has_aux=True needs a function of tensors"):
        root(ArrayFunction(abs), START, has_aux=True)
    with pytest.raises(ValueError, match="vmap over no slices"):
        torch.vmap(lambda x: root(ArrayFunction(Counted()), START, x).value)(torch.zeros(0, 2))
