"""Sparse tensors, TorchScript, lazy modules, attributes of modules, gradients inside of functions."""

import implicitly as im
import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")

D = torch.float64
N = 4
X = torch.randn(3, N, dtype=D, generator=torch.Generator().manual_seed(0))
A = torch.tensor(
    [[0.3, 0.0, 0.0, 0.2], [0.0, 0.0, 0.4, 0.0], [0.0, -0.3, 0.1, 0.0], [0.2, 0.0, 0.0, 0.0]],
    dtype=D,
)
CLOSE = 1e-8
LAYOUTS = {
    "dense": torch.clone,
    "coo": lambda a: a.to_sparse(),
    "csr": lambda a: a.to_sparse_csr(),
    "csc": lambda a: a.to_sparse_csc(),
}


class Coupled(torch.nn.Module):
    """`z ↦ w norm(tanh(A z + x))` with a matrix `A` as a buffer."""

    def __init__(self, layout, normalised=False):
        super().__init__()
        self.register_buffer("A", LAYOUTS[layout](A))
        self.w = torch.nn.Parameter(torch.tensor(0.4, dtype=D))
        self.norm = torch.nn.BatchNorm1d(N, dtype=D) if normalised else torch.nn.Identity()

    def forward(self, z, x):
        return self.w * self.norm(torch.tanh((self.A @ z.T).T + x))


class Cell(torch.nn.Module):
    def __init__(self, normalised=False):
        super().__init__()
        self.linear = torch.nn.Linear(N, N, dtype=D)
        torch.nn.init.orthogonal_(self.linear.weight, gain=0.5)
        self.norm = torch.nn.BatchNorm1d(N, dtype=D) if normalised else torch.nn.Identity()

    def forward(self, z, x):
        return torch.tanh(self.linear(z) + self.norm(x))


def two_orders(call, parameters=()):
    """The value, and gradients of first and second order."""
    x = X.clone().requires_grad_()
    value = call(x)
    over = [x, *parameters]
    first = torch.autograd.grad(value.square().sum(), over, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), over)
    return [value, *first, *second]


def close(got, want, tolerance=CLOSE):
    return all(torch.allclose(a, b, atol=tolerance) for a, b in zip(got, want, strict=True))


def iterated(f, x, steps=60):
    z = torch.zeros_like(x)
    for _ in range(steps):
        z = f(z, x)
    return z


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_sparse_buffers_give_what_dense_ones_give(layout, normalised):
    sparse, dense = Coupled(layout, normalised), Coupled("dense", normalised)
    got = two_orders(im.ImplicitLayer(sparse), [sparse.w])
    assert close(got, two_orders(im.ImplicitLayer(dense), [dense.w]))
    if normalised:
        assert torch.allclose(sparse.norm.running_mean, dense.norm.running_mean)


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_sparse_arguments_have_the_gradients_that_autograd_gives_them(layout):
    def f(z, A, x):
        return torch.tanh((A @ z.T).T + x)

    gradients = []
    for solve in (
        lambda A: im.fixed_point(f, torch.zeros_like(X), A, X, batch_dims=1).value,
        lambda A: im.fixed_point(lambda z, x: f(z, A, x), torch.zeros_like(X), X).value,
        lambda A: iterated(lambda z, x: f(z, A, x), X),
    ):
        matrix = LAYOUTS[layout](A).requires_grad_()
        solve(matrix).square().sum().backward()
        gradients.append(matrix.grad.to_dense())
    assert close(gradients[:1], gradients[2:])
    assert close(gradients[1:2], gradients[2:])


def test_sparse_tensors_and_checkpoints_under_transforms_are_right_or_errors_that_say_so():
    for layout in ("coo", "csr"):
        with pytest.raises(im.TracingError, match="sparse tensors"):
            torch.func.jacrev(im.ImplicitLayer(Coupled(layout)))(X)
    checkpoint = torch.utils.checkpoint.checkpoint
    layer = im.ImplicitLayer(
        lambda z, x: checkpoint(lambda z: 0.5 * z.tanh() + x, z, use_reentrant=False)
    )
    with pytest.raises(im.TracingError, match="checkpoints"):
        torch.func.jvp(layer, (X,), (X,))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
class TestTorchScript:
    def scripted(self, cell, inside):
        scripted = torch.jit.script(cell)
        if not inside:
            return scripted

        class Around(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.cell, self.w = scripted, torch.nn.Parameter(torch.ones((), dtype=D))

            def forward(self, z, x):
                return self.w * self.cell(z, x)

        return Around()

    @pytest.mark.parametrize("inside", [False, True])
    def test_it_has_the_gradients_of_the_module(self, inside):
        cell = Cell()
        layer = im.ImplicitLayer(self.scripted(cell, inside))
        want = torch.autograd.grad(iterated(cell, X).square().sum(), list(cell.parameters()))
        got = torch.autograd.grad(layer(X).square().sum(), list(cell.parameters()))
        assert close(got, want)
        with pytest.raises(im.CapturedTensorError, match="compiled code"):
            two_orders(layer, list(cell.parameters()))
        with pytest.raises(im.TracingError, match="TorchScript code"):
            torch.vmap(layer)(X[None])

    def test_changing_its_statistics_is_an_error_and_they_stay(self):
        cell = Cell(normalised=True)
        layer = im.ImplicitLayer(torch.jit.script(cell))
        with pytest.raises(TypeError, match="batch statistics"):
            layer(X)
        assert torch.equal(cell.norm.running_mean, torch.zeros(N, dtype=D))
        assert torch.allclose(layer.eval()(X), iterated(cell.eval(), X), atol=CLOSE)


def test_a_lazy_module_gets_its_shapes_at_the_first_call():
    class Lazy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = (
                torch.nn.LazyLinear(N, dtype=D),
                torch.nn.LazyBatchNorm1d(dtype=D),
            )

        def forward(self, z, x):
            return 0.3 * torch.tanh(self.linear(z) + self.norm(x))

    module = Lazy()
    z = im.ImplicitLayer(module)(X)
    assert torch.allclose(module.norm.running_mean, 0.1 * X.mean(0))
    assert torch.allclose(z, iterated(module, X), atol=CLOSE)
    z.sum().backward()
    assert module.linear.weight.grad.shape == (N, N)


class Delegating(torch.nn.Module):
    """Gives attributes of the module that it holds as its own."""

    def __init__(self, held):
        super().__init__()
        self.held = held
        self.table = {"gain": 0.9}

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in self.__dict__["table"]:
                return self.__dict__["table"][name]
            return getattr(super().__getattr__("held"), name)

    def forward(self, z, x):
        return self.gain * torch.tanh(self.linear(z) + x)


class Energy(torch.nn.Module):
    """A gradient step, as the gradient of a function of `z`."""

    def __init__(self, taken):
        super().__init__()
        self.linear, self.taken = torch.nn.Linear(N, N, dtype=D), taken
        torch.nn.init.orthogonal_(self.linear.weight, gain=0.7)

    def energy(self, z, x):
        return torch.log(torch.cosh(self.linear(z) + x)).sum()

    def forward(self, z, x):
        if self.taken == "by hand":
            return 0.8 * torch.tanh(self.linear(z) + x) @ self.linear.weight
        if self.taken == "func":
            return 0.8 * torch.func.grad(self.energy)(z, x)
        return 0.8 * torch.autograd.grad(self.energy(z, x), z, create_graph=True)[0]


@pytest.mark.parametrize("taken", ["func", "autograd"])
def test_a_gradient_inside_of_the_function(taken):
    module, by_hand = Energy(taken), Energy("by hand")
    by_hand.load_state_dict(module.state_dict())
    got = two_orders(im.ImplicitLayer(module), list(module.parameters()))
    want = two_orders(lambda x: iterated(by_hand, x, 150), list(by_hand.parameters()))
    assert close(got, want, 1e-7)
    with torch.no_grad():
        assert close([im.ImplicitLayer(module)(X)], want[:1])


def test_a_gradient_inside_of_the_function_under_a_transform_names_the_remedy():
    def F(w, a):
        return torch.autograd.grad(((w - 1) ** 2 + a * w**2).sum(), w, create_graph=True)[0]

    a = torch.tensor(0.5, dtype=D, requires_grad=True)
    w = im.root(F, torch.zeros(2, dtype=D), a).value
    assert torch.allclose(w, 1 / (1 + a).expand(2))
    (gradient,) = torch.autograd.grad(w.sum(), a)
    assert torch.allclose(gradient, -2 / (1 + a) ** 2)
    with pytest.raises(RuntimeError, match=r"torch\.func\.grad"):
        torch.func.grad(lambda a: im.root(F, torch.zeros(2, dtype=D), a).value.sum())(a)


def test_a_module_with_its_own_way_to_find_attributes():
    module = Delegating(Cell())
    got = two_orders(im.ImplicitLayer(module), list(module.parameters())[:1])
    want = two_orders(lambda x: iterated(module, x, 100), list(module.parameters())[:1])
    assert close(got, want)
