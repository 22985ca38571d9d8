"""Accuracy under autocast, beside the unrolled network under the same autocast."""

import copy

import implicitly as im
import pytest
import torch

# The error of the value and of the gradients, as a multiple of those of the unrolled network.
ALLOWED = 2.0


class Cell(torch.nn.Module):
    def __init__(self, gain, bent=torch.tanh):
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)
        torch.nn.init.orthogonal_(self.inner.weight, gain=gain)
        self.bent = bent

    def forward(self, z, x):
        return self.bent(self.inner(z) + self.outer(x))


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
    (value, slope), (own_value, own_slope), _ = errors(0, Cell, gain, dtype, solved)
    assert own_value <= ALLOWED * value
    assert own_slope <= ALLOWED * slope


@pytest.mark.parametrize("gain", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("seed", range(2))
def test_a_network_with_kinks_that_contracts_slowly(gain, seed):
    def cell(gain):
        return Cell(gain, torch.relu)

    def solved(cell, x):
        return im.ImplicitLayer(cell)(x)

    (value, slope), (own_value, own_slope), kinks = errors(seed, cell, gain, torch.bfloat16, solved)
    assert own_value <= ALLOWED * value
    # A unit within rounding of its kink may have the other derivative.
    assert kinks or own_slope <= ALLOWED * slope


def errors(seed, make, gain, dtype, solved):
    """Errors of value and gradients of the unrolled network and of the solve, and units across their kink."""
    torch.manual_seed(seed)
    cell, x = make(gain), torch.randn(8, 16)
    exact, wide = copy.deepcopy(cell).double(), x.double().requires_grad_()
    z = unrolled(exact, wide, 200)
    want, slopes = z.detach(), gradients(z, exact, wide)
    found = []
    for call in (lambda x: unrolled(cell, x, 60), lambda x: solved(cell, x)):
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype):
            z = call(own)
        found.append((error(z.detach(), want), error(gradients(z.float(), cell, own), slopes)))
    return *found, int(((z > 0) != (want > 0)).sum())


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
