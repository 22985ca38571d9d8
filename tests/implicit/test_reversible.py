"""The reversible iteration and its gradient, against the same iteration written as a loop."""

import pytest
import torch
from implicitly import (
    Anderson,
    ReconstructionError,
    Reversible,
    ReversibleIteration,
    Stopping,
    fixed_point,
    root,
)
from layers import draw
from oracle import tanh_map
from torch import Tensor


def inputs(systems=3, n=4) -> tuple[Tensor, Tensor]:
    W = draw(n, n)
    W = 0.7 * W / torch.linalg.matrix_norm(W, 2)
    return W.requires_grad_(), draw(systems, n, seed=1).requires_grad_()


def loop(z0: Tensor, W: Tensor, x: Tensor, steps: int, beta: float) -> Tensor:
    y = z = z0.double()
    for _ in range(steps):
        y = (1 - beta) * y + beta * tanh_map(z.to(x.dtype), W, x).double()
        z = (1 - beta) * z + beta * tanh_map(y.to(x.dtype), W, x).double()
    return z.to(x.dtype)


def run(z0, W, x, steps, beta, **options):
    return fixed_point(
        tanh_map, z0, W, x, gradient=Reversible(beta, steps=steps), batch_dims=1,
        stopping=Stopping(rtol=0.0, atol=0.0), on_failure="accept", **options,
    ).value  # fmt: skip


@pytest.mark.parametrize("beta", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("steps", [1, 2, 8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_gradient_is_that_of_backpropagation_through_the_loop(beta, steps, dtype):
    W, x = (t.detach().to(dtype).requires_grad_() for t in inputs())
    z0 = (0.1 * torch.ones_like(x)).requires_grad_()
    mine, theirs = run(z0, W, x, steps, beta), loop(z0, W, x, steps, beta)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(mine, theirs, rtol=0, atol=16 * eps)
    g = draw(*x.shape, seed=2).to(dtype)
    grads = [torch.autograd.grad((value * g).sum(), (z0, W, x)) for value in (mine, theirs)]
    # A rounding error in float64 grows by (1 − β)⁻² a step; the gradient is summed in the dtype.
    growth = abs(1 - beta) ** (-2 * steps)
    allowed = 100 * (2 * steps * eps + torch.finfo(torch.float64).eps * growth)
    for a, b in zip(*grads, strict=True):
        assert float((a - b).norm()) <= allowed * max(1.0, float(b.norm()))


def test_systems_that_end_at_different_steps_have_the_gradients_of_their_own():
    W, x = inputs()
    with torch.no_grad():
        x[0] *= 1e-3
    stopping = Stopping(rtol=1e-2)
    solution = fixed_point(
        tanh_map, torch.zeros_like(x), W, x, gradient=Reversible(), batch_dims=1, stopping=stopping
    )
    steps = solution.steps.tolist()
    assert len(set(steps)) > 1
    (mine,) = torch.autograd.grad(solution.value.sum(), x)
    for i, own in enumerate(steps):
        row = x.detach()[i : i + 1].requires_grad_()
        (theirs,) = torch.autograd.grad(loop(torch.zeros_like(row), W, row, own, 0.5).sum(), row)
        torch.testing.assert_close(mine[i : i + 1], theirs, rtol=1e-6, atol=1e-8)


def test_the_value_is_the_same_with_and_without_gradients():
    W, x = (t.detach().float() for t in inputs())
    bare = fixed_point(tanh_map, torch.zeros_like(x), W, x, gradient=Reversible(), batch_dims=1)
    taped = fixed_point(
        tanh_map, torch.zeros_like(x), W, x.requires_grad_(), gradient=Reversible(), batch_dims=1
    )
    assert torch.equal(bare.value, taped.value.detach())


def saved_bytes(steps: int) -> int:
    W, x = inputs(systems=16, n=32)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = run(torch.zeros_like(x), W, x, steps, 0.1)
    value.sum().backward()
    return sum(kept.values())


def test_saved_memory_does_not_depend_on_the_steps():
    assert saved_bytes(2) == saved_bytes(40)


def test_captured_leaves_take_part():
    W, x = inputs()
    z = fixed_point(
        lambda z: tanh_map(z, W, x), torch.zeros_like(x), gradient=Reversible(0.5, steps=6),
        batch_dims=1, stopping=Stopping(rtol=0.0, atol=0.0), on_failure="accept",
    ).value  # fmt: skip
    mine = torch.autograd.grad(z.sin().sum(), (W, x))
    theirs = torch.autograd.grad(loop(torch.zeros_like(x), W, x, 6, 0.5).sin().sum(), (W, x))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_second_derivatives_and_vmap_are_those_of_the_loop():
    W, x = inputs(systems=2, n=2)
    W, x = W.detach(), x.detach()

    def mine(x):
        return run(torch.zeros_like(x), W, x, 4, 0.5).sin().sum()

    def theirs(x):
        return loop(torch.zeros_like(x), W, x, 4, 0.5).sin().sum()

    # 16 · 4⁴ ε, and once more through the second derivative.
    near = {"rtol": 1e-9, "atol": 1e-9}
    leaf = x.clone().requires_grad_()
    first = [torch.autograd.grad(f(leaf), leaf, create_graph=True)[0] for f in (mine, theirs)]
    second = [torch.autograd.grad(g.square().sum(), leaf)[0] for g in first]
    torch.testing.assert_close(second[0], second[1], **near)
    torch.testing.assert_close(torch.func.grad(mine)(x), torch.func.grad(theirs)(x), **near)
    many = torch.stack((x, 2 * x))
    mapped = [torch.vmap(torch.func.grad(f))(many) for f in (mine, theirs)]
    torch.testing.assert_close(mapped[0], mapped[1], **near)


def test_a_reconstruction_that_fails_is_an_error_and_no_gradient():
    W, x = inputs()
    value = run(torch.zeros_like(x), W, x, 40, 0.9)  # 100⁴⁰ is beyond any number of digits.
    with pytest.raises(ReconstructionError, match=r"relative error of .* Use fewer steps"):
        value.sum().backward()


def test_misuse_is_an_error_that_says_what_to_use():
    z0 = torch.zeros(2)
    with pytest.raises(TypeError, match=r"is a root F\(z\) = 0: use Exact"):
        root(lambda z: z - 1, z0, gradient=Reversible())
    with pytest.raises(TypeError, match=r"leave solver out, or use Unrolled\(\).*Anderson"):
        fixed_point(torch.cos, z0, gradient=Reversible(), solver=Anderson())
    with pytest.raises(TypeError, match="needs a fixed point"):
        root(lambda z: z - 1, z0, solver=ReversibleIteration())
    for wrong in (0.0, 1.0, 2.0):
        with pytest.raises(ValueError, match=r"relaxation must be in \(0, 2\) and not 1"):
            Reversible(wrong)
    with pytest.raises(ValueError, match="steps must be an integer ≥ 1"):
        Reversible(steps=0)
    W, _ = inputs(n=2)
    with pytest.raises(TypeError, match="no forward mode"):
        torch.func.jvp(
            lambda x: run(torch.zeros_like(x), W, x, 2, 0.5),
            (z0[None].double(),),
            (z0[None].double(),),
        )
