"""Surroundings of a call: random numbers, buffers, autocast and hooks on saved tensors."""

import threading

import pytest
import torch
from implicitly import (
    Broyden,
    Exact,
    ImplicitLayer,
    Newton,
    NewtonKrylov,
    Unrolled,
    fixed_point,
    root,
)
from pairs import name
from torch import nn
from torch.utils.checkpoint import checkpoint

from .cells import TIGHT, Cell, dense_gradient, inputs

pytestmark = pytest.mark.usefixtures("seeded")


def test_dropout_keeps_one_mask_for_the_solve_and_its_gradient(monkeypatch):
    # The compiler of an earlier test may have left threads, beside which a call draws once more.
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    cell, x = Cell(dropout=0.5).train(), inputs().requires_grad_()
    layer = ImplicitLayer(cell, stopping=TIGHT)
    before = torch.get_rng_state()
    z = layer(x)
    after = torch.get_rng_state()
    z.sum().backward()
    assert torch.equal(after, torch.get_rng_state()), "the backward pass moved the generator"

    torch.set_rng_state(before)
    mask = nn.functional.dropout(torch.ones_like(x), 0.5)
    assert torch.equal(after, torch.get_rng_state()), "one call draws as much as one evaluation"

    def masked(z, x):
        return torch.tanh(mask * cell.linear(z) + x)

    torch.testing.assert_close(masked(z, x), z, rtol=0, atol=1e-11)
    expected = dense_gradient(masked, z, x)
    torch.testing.assert_close(x.grad, expected, rtol=1e-9, atol=1e-9)


def test_a_backward_pass_leaves_the_random_numbers_to_come_alone():
    layer, x = ImplicitLayer(Cell(dropout=0.5), stopping=TIGHT), inputs().requires_grad_()
    z = layer(x)
    torch.rand(3)
    state = torch.get_rng_state()
    z.sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_two_calls_draw_two_masks():
    layer = ImplicitLayer(Cell(dropout=0.5).train())
    assert not torch.equal(layer(inputs()), layer(inputs()))


def test_random_numbers_drawn_only_later_are_an_error():
    calls = []

    def f(z):
        calls.append(1)
        return 0.5 * z + (torch.rand(()) if len(calls) > 2 else 1.0)

    with pytest.raises(RuntimeError, match="random numbers in a later evaluation"):
        fixed_point(f, torch.zeros(()), on_failure="accept")


def test_batch_statistics_move_once_per_call():
    cell, x = Cell(normalise=True).train(), inputs()
    layer = ImplicitLayer(cell)
    z = layer(x)
    layer(x + 1)
    z.sum().backward()
    reference = nn.BatchNorm1d(4, dtype=torch.float64)
    reference(x)
    reference(x + 1)
    assert int(cell.norm.num_batches_tracked) == 2
    torch.testing.assert_close(cell.norm.running_mean, reference.running_mean, rtol=0, atol=1e-15)
    torch.testing.assert_close(cell.norm.running_var, reference.running_var, rtol=1e-14, atol=0)


def test_statistics_of_the_unknown_are_those_of_the_solution():
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4, dtype=torch.float64, affine=False)

        def forward(self, z, x):
            return 0.2 * self.norm(z + x)

    module, x = Normalised(), inputs()
    z = ImplicitLayer(module, solver=Newton(), batch_dims=0)(x)
    reference = nn.BatchNorm1d(4, dtype=torch.float64)
    reference(z + x)
    torch.testing.assert_close(module.norm.running_mean, reference.running_mean, rtol=0, atol=1e-12)


def test_autocast_is_replayed_in_the_backward_pass():
    seen = []

    class Watched(Cell):
        def forward(self, z, x):
            value = super().forward(z, x)
            seen.append(self.linear(z).dtype)
            return value

    cell, x = Watched().float(), inputs().float().requires_grad_()
    layer = ImplicitLayer(cell)
    with torch.autocast("cpu", torch.bfloat16):
        z = layer(x)
    z.sum().backward()
    assert z.dtype == torch.float32
    assert set(seen) == {torch.bfloat16}
    exact = dense_gradient(cell.float(), z, x).detach()
    # bfloat16 has eight bits: the tolerance in force is four units of rounding, 3 %, each way.
    assert float((x.grad - exact).norm() / exact.norm()) < 0.15


def test_every_evaluation_sees_the_buffers_from_before_the_call():
    class Fading(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor(0.5, dtype=torch.float64))

        def forward(self, z, x):
            value = self.scale * torch.tanh(z) + x
            self.scale = 0.9 * self.scale.detach()
            return value

    module, x = Fading(), inputs().requires_grad_()
    z = ImplicitLayer(module, stopping=TIGHT)(x)
    torch.testing.assert_close(z, 0.5 * torch.tanh(z) + x, rtol=0, atol=1e-11)
    assert float(module.scale) == 0.5 * 0.9
    z.sum().backward()
    slope = 1 - torch.tanh(z.detach()).square()
    torch.testing.assert_close(x.grad, 1 / (1 - 0.5 * slope), rtol=1e-9, atol=0)


def test_a_buffer_that_is_written_in_place_moves_once_and_no_evaluation_sees_it():
    class Fading(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor(0.5, dtype=torch.float64))

        def forward(self, z, x):
            value = self.scale.clone() * torch.tanh(z) + x
            self.scale.mul_(0.9)
            return value

    module, x = Fading(), inputs()
    z = ImplicitLayer(module, stopping=TIGHT)(x)
    torch.testing.assert_close(z, 0.5 * torch.tanh(z) + x, rtol=0, atol=1e-11)
    assert float(module.scale) == 0.5 * 0.9


@pytest.mark.parametrize("exponent", [-30, -50])
def test_a_tiny_cotangent_under_autocast_has_its_gradient(exponent):
    cell, x = Cell().float(), inputs().float().requires_grad_()
    layer, size = ImplicitLayer(cell), 2.0**exponent
    with torch.autocast("cpu", torch.bfloat16):
        z = layer(x)
    (whole,) = torch.autograd.grad(z.sum(), x, retain_graph=True)
    (tiny,) = torch.autograd.grad(z.sum() * size, x)
    # Powers of two pass through every operation of a linear solve without rounding.
    assert whole.norm() > 0
    assert torch.equal(tiny / size, whole)


# --- Hooks on saved tensors ----------------------------------------------------------------------

sees_hooks = pytest.mark.skipif(
    not hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"),
    reason="PyTorch 2.6 does not tell of hooks",
)


@sees_hooks
@pytest.mark.parametrize("solver", [Newton(), NewtonKrylov(), Broyden()], ids=name)
@pytest.mark.parametrize("gradient", [Exact(), Unrolled()], ids=["exact", "unrolled"])
def test_a_checkpoint_evaluates_no_more_than_the_call_alone(solver, gradient):
    w = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    x = inputs(2, 8).requires_grad_()
    calls = 0

    def loss(x):
        def F(z, x):
            nonlocal calls
            calls += 1
            return z + z**3 - torch.tanh(w * z.flip(-1)) - x

        start = torch.zeros_like(x)
        solution = root(F, start, x, solver=solver, batch_dims=1, gradient=gradient)
        return solution.value.square().sum()

    value = loss(x)
    forward, calls = calls, 0
    expected = torch.autograd.grad(value, (x, w))
    backward, calls = calls, 0
    value = checkpoint(loss, x, use_reentrant=False)
    in_checkpoint, calls = calls, 0
    found = torch.autograd.grad(value, (x, w))
    # The backward pass of a checkpoint makes the call once more.
    assert (in_checkpoint, calls) == (forward, forward + backward)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@sees_hooks
@pytest.mark.parametrize("shape", [(3, 0), (0, 3)])
def test_a_checkpoint_without_numbers_is_no_error(shape):
    x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)

    def loss(x):
        return root(lambda z, x: z - torch.tanh(z) - x, torch.zeros_like(x), x).value.sum()

    checkpoint(loss, x, use_reentrant=False).backward()
    assert x.grad.shape == shape


@sees_hooks
def test_hooks_see_what_the_backward_pass_needs_and_nothing_of_the_solve():
    x, seen = inputs().requires_grad_(), []

    def keep(tensor):
        seen.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        fixed_point(lambda z, x: torch.sin(z) / 2 + x, torch.zeros_like(x), x, solver=Newton())
    # The solution and the argument.
    assert seen == [x.shape] * 2
