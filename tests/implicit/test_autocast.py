"""Accuracy under autocast, beside the unrolled network under the same autocast."""

import copy

import implicitly as im
import pytest
import torch

# The error of the value and of the gradients, as a multiple of those of the unrolled network.
ALLOWED = 2.0


class Cell(torch.nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)
        torch.nn.init.orthogonal_(self.inner.weight, gain=gain)

    def forward(self, z, x):
        return torch.tanh(self.inner(z) + self.outer(x))


def unrolled(cell, x, steps):
    z = torch.zeros_like(x)
    for _ in range(steps):
        z = cell(z, x)
    return z


def gradients(z, cell, x):
    weights = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).reshape(z.shape)
    found = torch.autograd.grad((z * weights).sum(), [x, *cell.parameters()])
    return torch.cat([gradient.flatten().double() for gradient in found])


def error(got, want):
    return float((got.double() - want).norm() / want.norm())


def as_a_root(cell, x):
    return im.root(lambda z, x: z - cell(z, x), torch.zeros_like(x), x, batch_dims=1).value


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("gain", [0.5, 0.9])
@pytest.mark.parametrize("solved", [lambda cell, x: im.ImplicitLayer(cell)(x), as_a_root])
def test_errors_are_at_most_twice_those_of_the_unrolled_network(dtype, gain, solved):
    torch.manual_seed(0)
    cell, x = Cell(gain), torch.randn(8, 16)
    exact, wide = copy.deepcopy(cell).double(), x.double().requires_grad_()
    z = unrolled(exact, wide, 200)
    want, slopes = z.detach(), gradients(z, exact, wide)
    errors = []
    for call in (lambda x: unrolled(cell, x, 60), lambda x: solved(cell, x)):
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype):
            z = call(own)
        errors.append((error(z.detach(), want), error(gradients(z.float(), cell, own), slopes)))
    (value, slope), (own_value, own_slope) = errors
    assert own_value <= ALLOWED * value
    assert own_slope <= ALLOWED * slope


def test_a_tolerance_or_limit_that_was_asked_for_is_kept():
    torch.manual_seed(0)
    cell, x = Cell(0.9), torch.randn(8, 16)
    with torch.autocast("cpu", torch.bfloat16):
        free = im.ImplicitLayer(cell)
        free(x)
        asked = im.ImplicitLayer(cell, stopping=im.Stopping(rtol=0.03))
        asked(x)
    assert int(asked.solution.steps.max()) < int(free.solution.steps.max())
    assert float(free.solution.residual_norm.max()) < float(asked.solution.residual_norm.max())
