"""Hooks on saved tensors see what the caller's graph keeps, and nothing of a solve."""

import implicitly as im
import pytest
import torch
from torch.utils.checkpoint import checkpoint

D = torch.float64


class Counted:
    """`F(z, x) = z + 0.1 z³ − x`, which counts its evaluations."""

    def __init__(self):
        self.evaluations = 0

    def __call__(self, z, x):
        self.evaluations += 1
        return z + 0.1 * z**3 - x


@pytest.mark.parametrize("solver", [im.Newton(), im.NewtonKrylov(), im.Broyden()])
def test_a_checkpointed_solve_is_made_once_in_each_pass(solver):
    counted = Counted()
    x = torch.linspace(-1, 1, 4, dtype=D).requires_grad_()

    def solve(x):
        return im.root(counted, torch.zeros_like(x), x, solver=solver).value

    plain = solve(x)
    once, counted.evaluations = counted.evaluations, 0
    value = checkpoint(solve, x, use_reentrant=False)
    assert counted.evaluations == once
    (gradient,) = torch.autograd.grad(value.sum(), x)
    # Again the forward pass, and the adjoint equation.
    assert counted.evaluations <= 3 * once
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(gradient, 1 / (1 + 0.3 * plain.detach() ** 2))


@pytest.mark.parametrize("shape", [(3, 0), (0, 3)])
@pytest.mark.parametrize("solver", [im.Anderson(), im.Broyden(), im.DFSANE()])
def test_an_empty_complex_system_can_be_checkpointed(shape, solver):
    x = torch.ones(shape, dtype=torch.complex128, requires_grad=True)

    def solve(x):
        return im.root(lambda z, x: z - 0.5 * z.tanh() - x, torch.zeros_like(x), x, solver=solver)

    value = checkpoint(lambda x: solve(x).value, x, use_reentrant=False)
    (gradient,) = torch.autograd.grad(value.abs().sum(), x)
    assert gradient.shape == shape


def test_hooks_get_the_arguments_and_the_solution_alone_and_are_there_again_afterwards():
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    x = torch.ones(3, dtype=D, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = im.root(Counted(), torch.zeros_like(x), x, solver=im.Newton()).value
        assert len(kept) == 2
        x.square()
        assert len(kept) == 3
    torch.autograd.grad(value.sum(), x)


def test_a_function_may_use_transforms_inside_of_a_checkpoint():
    x = torch.linspace(0.5, 1, 3, dtype=D).requires_grad_()

    def slope(z, x):  # z + 0.4 z³ = x
        return torch.func.grad(lambda z: (0.5 * z**2 + 0.1 * z**4).sum())(z) - x

    def solve(x):
        return im.root(slope, torch.zeros_like(x), x, solver=im.Newton()).value

    with torch.autograd.graph.save_on_cpu():
        value = solve(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(gradient, 1 / (1 + 1.2 * value.detach() ** 2))
