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
