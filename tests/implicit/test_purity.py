"""A function that is not the same one at every evaluation: the call or the derivative says so."""

import implicitly as im
import numpy as np
import pytest
import torch

D = torch.float64
X = torch.tensor([0.3, 0.7], dtype=D)


def test_a_failed_solve_says_that_its_function_changes():
    generator = np.random.default_rng(0)

    def noisy(z, x):
        return 0.5 * torch.cos(z) + x + 1e-3 * float(generator.normal())

    with pytest.raises(im.SolveError, match="not one function throughout the solve"):
        im.fixed_point(noisy, torch.zeros_like(X), X)
    few = im.Stopping(max_steps=2)
    with pytest.raises(im.SolveError) as caught:
        im.fixed_point(lambda z, x: 0.5 * torch.cos(z) + x, torch.zeros_like(X), X, stopping=few)
    assert "not one function" not in str(caught.value)


@pytest.mark.parametrize("form", [im.fixed_point, im.root])
def test_a_derivative_says_that_its_function_has_changed_since(form):
    gain = torch.tensor(0.5, dtype=D)
    x = X.clone().requires_grad_()

    def f(z, x):
        step = gain * torch.cos(z) + x
        return step if form is im.fixed_point else z - step

    z = form(f, torch.zeros_like(X), x).value
    (gradient,) = torch.autograd.grad(z.sum(), x, retain_graph=True)
    assert torch.allclose(gradient, 1 / (1 + gain * torch.sin(z)))
    gain.mul_(0.9)
    with pytest.warns(im.ChangedFunctionWarning, match="another value at the solution") as warned:
        z.sum().backward()
    assert warned[0].filename == __file__


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rounding_is_no_change(dtype):
    x = torch.rand(64, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    z = im.fixed_point(lambda z, x: torch.tanh(0.9 * z) + 100 * x, torch.zeros_like(x), x).value
    z.sum().backward()
    assert bool(torch.isfinite(x.grad).all())


def counting(gain):
    """A map that moves with the number of its calls, and comes to rest."""
    calls = []

    def f(z, x):
        calls.append(None)
        return gain(len(calls)) * torch.cos(z) + x

    return f


class Counting(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.f = counting(lambda n: 0.3 + 0.1 * 0.1**n)

    def forward(self, z, x):
        return self.f(z, x)


@pytest.mark.parametrize(
    "solve",
    [
        lambda f, x: im.fixed_point(f, torch.zeros_like(x), x),
        lambda f, x: im.root(lambda z, x: z - f(z, x), torch.zeros_like(x), x),
        lambda f, x: im.fixed_point(lambda z, *, x: f(z, x), torch.zeros_like(x), x=x),
        lambda f, x: im.ImplicitLayer(f)(x),
        lambda f, x: im.ImplicitLayer(Counting())(x),
    ],
    ids=["fixed point", "root", "by name", "function", "module"],
)
def test_a_solve_without_a_derivative_says_that_its_function_has_changed(solve):
    f = counting(lambda n: 0.3 + 0.1 * 0.1**n)
    with torch.no_grad(), pytest.warns(im.ChangedFunctionWarning, match="throughout") as warned:
        solve(f, X)
    assert warned[0].filename == __file__


def test_a_function_that_stays_the_same_is_evaluated_once_more_in_few_calls():
    calls = []

    def f(z, x):
        calls.append(None)
        return 0.5 * torch.cos(z) + x

    more = []
    for _ in range(100):
        calls.clear()
        evaluations = im.fixed_point(f, torch.zeros_like(X), X).counts.evaluations
        more.append(len(calls) - evaluations)
    assert more[0] == 1
    assert sum(more) == 8 + 3


def test_a_long_solve_of_a_known_function_is_examined_again():
    drift = [0.0]

    def f(z, x):
        return 0.8 * torch.cos(z) + x + drift[0]

    plain = im.FixedPointIteration()
    for _ in range(9):
        im.fixed_point(f, torch.zeros_like(X), X, solver=plain)

    def change(step, norms):
        drift[0] = 1e-3

    with pytest.warns(im.ChangedFunctionWarning, match="throughout"):
        im.fixed_point(f, torch.zeros_like(X), X, solver=plain, callback=change)
