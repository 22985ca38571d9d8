"""An equation inside the function of another: derivatives of every order, whatever reaches the inner one."""

import implicitly as im
import pytest
import torch

D = torch.float64
X = torch.tensor([0.3, 0.7], dtype=D)
C = torch.tensor([1.0, -0.5], dtype=D)
# Of the solves' tolerance, 1e-12, and of second derivatives, which are below 10.
CLOSE = 1e-9
TIGHT = im.Stopping(rtol=1e-12)


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.4, dtype=D))

    def forward(self, y, z):
        return 0.5 * torch.tanh(self.w * y + z)


def solved(f, *args):
    solver = im.FixedPointIteration()
    return im.fixed_point(f, torch.zeros_like(args[0]), *args, stopping=TIGHT, solver=solver).value


def iterated(f, *args):
    z = torch.zeros_like(args[0])
    # Both maps contract by 0.3 at least: 25 steps leave 1e-13.
    for _ in range(25):
        z = f(z, *args)
    return z


def closing_over(inner, fixed_point):
    return lambda z: fixed_point(lambda y, z: inner(y, z), z)


def with_an_argument(inner, fixed_point):
    return lambda z: fixed_point(lambda y, z, w: 0.5 * torch.tanh(w * y + z), z, inner.w)


def as_a_layer(inner, fixed_point):
    if fixed_point is iterated:
        return closing_over(inner, fixed_point)
    return im.ImplicitLayer(inner, batch_dims=0, stopping=TIGHT)


def two_deep(inner, fixed_point):
    deepest = closing_over(inner, fixed_point)
    return lambda z: fixed_point(lambda y, z: 0.5 * torch.tanh(inner.w * deepest(y) + z), z)


WAYS = [closing_over, with_an_argument, as_a_layer]


def outer(inner, way, fixed_point):
    inside = way(inner, fixed_point)
    return lambda x: fixed_point(lambda z, x: torch.tanh(0.5 * inside(z) + inner.w * x), x)


def loss(solve):
    return lambda x: (solve(x) * C).sum()


def second_order(solve, w):
    """Gradients of a function of the gradients, by two passes."""
    x = X.clone().requires_grad_()
    first = torch.autograd.grad(loss(solve)(x * w), [x, w], create_graph=True)
    total = torch.sin(first[0]).sum() + torch.exp(first[1])
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(total, [x, w])])


func = torch.func
TRANSFORMS = {
    "jvp": lambda solve: func.jvp(solve, (X,), (C,))[1],
    "jacfwd": lambda solve: func.jacfwd(solve)(X),
    "hessian": lambda solve: func.hessian(loss(solve))(X),
    "jacrev of jacrev": lambda solve: func.jacrev(func.jacrev(loss(solve)))(X),
    "vjp of vjp": lambda solve: func.vjp(lambda x: func.vjp(solve, x)[1](C)[0], X)[1](C)[0],
    "vmap of grad": lambda solve: torch.vmap(func.grad(loss(solve)))(torch.stack([X, 2 * X])),
    "jvp of vmap": lambda solve: func.jvp(torch.vmap(solve), (X[None],), (C[None],))[1],
}


SLOW = ("jacfwd", "jacrev of jacrev", "vjp of vjp", "jvp of vmap")
# The other ways of the second derivative take seconds each.
BY_ONE_WAY = ("hessian",)


@pytest.mark.parametrize(
    ("transform", "way"),
    [
        pytest.param(
            name,
            way,
            id=f"{name}-{way.__name__}",
            marks=pytest.mark.long
            if name in SLOW or (name in BY_ONE_WAY and way is not closing_over)
            else (),
        )
        for name in TRANSFORMS
        for way in WAYS
    ],
)
def test_transforms_of_an_equation_in_another(transform, way):
    inner = Inner()
    got = TRANSFORMS[transform](outer(inner, way, solved))
    want = TRANSFORMS[transform](outer(inner, way, iterated))
    assert torch.allclose(got, want, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("way", [*WAYS, pytest.param(two_deep, marks=pytest.mark.long)])
def test_a_second_backward_pass_reaches_what_inner_functions_close_over(way):
    inner = Inner()
    got = second_order(outer(inner, way, solved), inner.w)
    want = second_order(outer(inner, way, iterated), inner.w)
    assert torch.allclose(got, want, rtol=CLOSE, atol=CLOSE)


class Product(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a, b):
        return a * b

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        a, b = ctx.saved_tensors
        return cotangent * b, (cotangent * a).sum()


def test_an_autograd_function_of_the_user_that_hides_a_tensor_is_right_or_an_error():
    w = torch.tensor(0.4, dtype=D, requires_grad=True)

    def solve(x):
        return solved(lambda z, x: 0.5 * torch.tanh(Product.apply(z, w) + w * x), x)

    def plain(x):
        return iterated(lambda z, x: 0.5 * torch.tanh(z * w + w * x), x)

    x = X.clone().requires_grad_()
    for got, want in zip(
        torch.autograd.grad(loss(solve)(x), [x, w]),
        torch.autograd.grad(loss(plain)(x), [x, w]),
        strict=True,
    ):
        assert torch.allclose(got, want, rtol=CLOSE)
    assert torch.allclose(
        func.hessian(loss(lambda x: plain(x)))(X),
        func.jacrev(func.grad(loss(solve)))(X),
        rtol=CLOSE,
    )
    with pytest.raises(im.CapturedTensorError, match="autograd function of its own"):
        second_order(solve, w)


def test_forward_mode_and_vmap_in_either_order():
    """`z = cos(x z)` has `ż = −z sin(x z) ẋ / (1 + x sin(x z))`."""
    x = torch.stack([X, 2 * X])

    def solve(x):
        return im.fixed_point(lambda z, x: torch.cos(x * z), torch.ones_like(x), x).value

    z = torch.vmap(solve)(x)
    want = -z * torch.sin(x * z) * x / (1 + x * torch.sin(x * z))
    mapped = torch.vmap(lambda x: func.jvp(solve, (x,), (x,))[1])(x)
    assert torch.allclose(mapped, want, rtol=1e-7)
    assert torch.allclose(func.jvp(torch.vmap(solve), (x,), (x,))[1], want, rtol=1e-7)
