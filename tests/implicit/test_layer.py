"""The layer as a module: state, repeated calls, surroundings that are replayed, memory."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from implicitly import (
    Anderson,
    Broyden,
    Exact,
    ImplicitLayer,
    JacobianFree,
    Neumann,
    Newton,
    NewtonKrylov,
    Stopping,
    Unrolled,
    fixed_point,
    root,
)
from torch import nn

from .cells import TIGHT, Cell, dense_gradient, inputs

pytestmark = pytest.mark.usefixtures("seeded")


def test_parameters_and_inputs_get_the_gradients_of_the_dense_reference():
    cell, x = Cell(), inputs().requires_grad_()
    layer = ImplicitLayer(cell, stopping=TIGHT)
    z = layer(x)
    z.sum().backward()
    torch.testing.assert_close(x.grad, dense_gradient(cell, z, x), rtol=1e-9, atol=1e-9)
    assert set(dict(layer.named_parameters())) == {"f.linear.weight", "f.linear.bias"}
    assert cell.linear.bias.grad is not None


def test_the_last_solution_is_kept_detached_and_says_what_was_done():
    layer = ImplicitLayer(Cell())
    assert layer.solution is None
    z = layer(inputs().requires_grad_())
    assert not layer.solution.value.requires_grad
    assert torch.equal(layer.solution.value, z)
    assert layer.solution.converged.all()
    assert layer.solution.residual_norm.shape == (5,)
    assert layer.solution.evaluations >= int(layer.solution.steps.max())


def test_gradients_exist_in_eval_mode():
    layer = ImplicitLayer(Cell(dropout=0.5)).eval()
    x = inputs().requires_grad_()
    layer(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_the_layer_can_be_called_twice_before_a_backward():
    layer = ImplicitLayer(Cell(), stopping=TIGHT)
    a, b = inputs().requires_grad_(), (inputs() + 1).requires_grad_()
    (layer(a).sum() + layer(b).square().sum()).backward()
    together = layer.f.linear.weight.grad.clone()
    layer.zero_grad()
    layer(a.detach()).sum().backward()
    layer(b.detach()).square().sum().backward()
    torch.testing.assert_close(together, layer.f.linear.weight.grad, rtol=1e-12, atol=1e-12)


def test_backward_can_run_twice_on_a_retained_graph():
    layer, x = ImplicitLayer(Cell()), inputs().requires_grad_()
    loss = layer(x).sum()
    loss.backward(retain_graph=True)
    once = x.grad.clone()
    loss.backward()
    assert torch.equal(x.grad, 2 * once)


def test_a_layer_inside_a_layer_is_differentiated_through_both():
    inner = ImplicitLayer(lambda u, z: 0.5 * torch.sin(u) + z, stopping=TIGHT)

    def outer(z, x):
        return 0.3 * torch.tanh(inner(z)) + x

    x = inputs(2, 2)
    layer = ImplicitLayer(outer, stopping=TIGHT)
    assert torch.autograd.gradcheck(layer, x.requires_grad_())


# What a function closes over.


# Surroundings.


# Module life.


def test_a_layer_can_be_copied_pickled_and_restored():
    layer = ImplicitLayer(Cell())
    layer(inputs().requires_grad_())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(inputs()), layer(inputs()))
    other = ImplicitLayer(Cell())
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(inputs()), layer(inputs()))


@pytest.mark.parametrize("mode", [Exact(), Unrolled(), Neumann(3), JacobianFree()], ids=str)
def test_parameters_under_functional_call_and_ensembles_by_vmap(mode):
    layers = [ImplicitLayer(Cell(), stopping=TIGHT, gradient=mode) for _ in range(3)]
    x = inputs()
    parameters, buffers = torch.func.stack_module_state(layers)

    def loss(p, b):
        return torch.func.functional_call(layers[0], (p, b), (x,)).square().sum()

    mapped = torch.func.vmap(torch.func.grad(loss))(parameters, buffers)
    for i, layer in enumerate(layers):
        layer(x).square().sum().backward()
        for key, parameter in layer.named_parameters():
            torch.testing.assert_close(mapped[key][i], parameter.grad, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_function_gives_the_same_value_and_gradient(backend):
    cell, x = Cell(), inputs()

    def gradients(f):
        primal = x.clone().requires_grad_()
        cell.zero_grad()
        z = ImplicitLayer(f, stopping=TIGHT)(primal)
        z.square().sum().backward()
        return z.detach(), primal.grad, cell.linear.weight.grad.clone()

    for a, b in zip(gradients(torch.compile(cell, backend=backend)), gradients(cell), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("form", ["fixed_point", "root"])
@pytest.mark.parametrize(
    "solver", [Anderson(), Broyden(), Newton(), NewtonKrylov()], ids=lambda s: type(s).__name__
)
def test_a_compiled_function_serves_every_solver(form, solver):
    weight = 0.9 * torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q

    def function(z, x, weight):
        value = torch.tanh(z @ weight.mT + x)
        return value if form == "fixed_point" else z - value

    def gradients(f):
        x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6).requires_grad_()
        w = weight.clone().requires_grad_()
        solve = fixed_point if form == "fixed_point" else root
        z = solve(f, torch.zeros_like(x), x, w, solver=solver, stopping=TIGHT, batch_dims=1).value
        return (z.detach(), *torch.autograd.grad(z.square().sum(), (x, w)))

    compiled = torch.compile(function, backend="aot_eager")
    for a, b in zip(gradients(compiled), gradients(function), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_a_function_differentiable_once_only_names_the_remedy_where_products_need_more():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return 0.5 * z.sin() + 1

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return 0.5 * ctx.saved_tensors[0].cos() * gradient

    start = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"products J v .*Anderson, Broyden, Newton"):
        fixed_point(Once.apply, start, solver=NewtonKrylov())
    # One that needs the transpose alone, on a root, finds the answer: z = sin(z) / 2 + 1.
    z = root(lambda z: z - Once.apply(z), start, solver=Broyden(), stopping=TIGHT).value
    torch.testing.assert_close(0.5 * z.sin() + 1, z, rtol=0, atol=1e-9)


# Memory.


def saved_bytes(run, exclude=()) -> int:
    """Bytes of the storages that autograd saves while `run` runs, each counted once."""
    storages = {}
    skip = {tensor.untyped_storage().data_ptr() for tensor in exclude}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in skip:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = run()
    del kept
    return sum(size for size, _ in storages.values())


def test_saved_memory_does_not_grow_with_the_number_of_iterations():
    cell, x = Cell(16), inputs(8, 16)

    def saved(gradient, steps):
        layer = ImplicitLayer(
            cell, gradient=gradient, on_failure="accept",
            stopping=Stopping(rtol=0.0, atol=0.0, max_steps=steps, patience=10**6),
        )  # fmt: skip
        return saved_bytes(lambda: layer(x.requires_grad_()), exclude=(*cell.parameters(), x))

    # One iterate and nothing else: 8 · 16 numbers of eight bytes.
    assert saved(Exact(), 10) == saved(Exact(), 200) == 8 * 16 * 8
    assert saved(Unrolled(), 40) > 10 * saved(Exact(), 40)


def test_a_solution_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        layer, x = ImplicitLayer(Cell()), inputs().requires_grad_()
        z = layer(x)
        watch = weakref.ref(z)
        z.sum().backward()
        del z
        layer.solution = None
        assert watch() is None
    finally:
        gc.enable()


# Wrong use.


def test_a_module_on_another_device_is_an_error_that_names_both():
    layer = ImplicitLayer(Cell().to("meta"))
    with pytest.raises(ValueError, match=r"'linear.weight' of Cell is on meta.*z0 is on cpu"):
        layer(inputs())


def test_a_layer_without_input_asks_for_a_start():
    layer = ImplicitLayer(lambda z: torch.cos(z))
    with pytest.raises(ValueError, match="init=... or z0=..."):
        layer()
    assert layer(z0=torch.ones(3)).shape == (3,)


def test_an_integer_input_asks_for_a_start():
    table = nn.Embedding(10, 4, dtype=torch.float64)

    def f(z, tokens):
        return 0.5 * torch.tanh(z) + table(tokens)

    tokens = torch.tensor([1, 2, 3])
    with pytest.raises(TypeError, match="give init="):
        ImplicitLayer(f)(tokens)
    layer = ImplicitLayer(f, init=lambda tokens: torch.zeros(len(tokens), 4, dtype=torch.float64))
    layer(tokens).sum().backward()
    assert table.weight.grad[1:4].abs().min() > 0


def test_wrong_options_are_errors_that_name_them():
    with pytest.raises(TypeError, match="solver must be an instance.*class Newton"):
        ImplicitLayer(Cell(), solver=Newton)
    with pytest.raises(TypeError, match="gradient must be an instance"):
        ImplicitLayer(Cell(), gradient="exact")
    with pytest.raises(ValueError, match="form must be one of 'fixed_point', 'root'"):
        ImplicitLayer(Cell(), "fixedpoint")
    with pytest.raises(ValueError, match="on_failure must be one of"):
        ImplicitLayer(Cell(), on_failure="ignore")
    with pytest.raises(TypeError, match="f must be callable"):
        ImplicitLayer(3)
    with pytest.raises(TypeError, match="must be an instance of a solver"):
        Exact(solver="gmres")


def test_batched_args_drop_finished_systems_and_change_nothing():
    cell, x = Cell(), inputs(8)
    x[:6] *= 1e-6
    # The tiny ones converge in fewer extrapolations, and in as many plain steps.
    plain = ImplicitLayer(cell, solver=Anderson())
    dropping = ImplicitLayer(cell, solver=Anderson(), batched_args=[True])
    rows = []
    cell.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    torch.testing.assert_close(dropping(x), plain(x), rtol=1e-14, atol=1e-15)
    assert min(rows) < 8
    with pytest.raises(ValueError, match="one entry for each"):
        ImplicitLayer(cell, batched_args=[True, True])(x)
