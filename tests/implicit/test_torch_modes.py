"""A solve inside PyTorch's modes and transforms: the right answer or a clear error."""

import sys

import implicitly as im
import numpy as np
import pytest
import torch
from at_once import in_threads
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

pytestmark = pytest.mark.usefixtures("seeded")
X = torch.tensor([0.5, 2.0], dtype=torch.float64)
# Of the solve's tolerance, 1e-10, and of the conditioning of the equation, below 2.
CLOSE = 1e-8


class Cell(torch.nn.Module):
    """`z ↦ tanh(W z + x)` with ‖W‖ = ½, which counts its calls."""

    def __init__(self, normalised=False):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3, dtype=torch.float64)
        torch.nn.init.orthogonal_(self.linear.weight, gain=0.5)
        self.norm = torch.nn.BatchNorm1d(3, dtype=torch.float64) if normalised else None
        self.calls = 0

    def forward(self, z, x):
        self.calls += 1
        total = self.linear(z) + x
        return 0.5 * torch.tanh(total if self.norm is None else self.norm(total))


def cosine(z, x):
    return torch.cos(x * z)


def solve(x, *, gradient=None):
    return im.fixed_point(
        cosine, torch.ones_like(x), x, batch_dims=1, gradient=gradient, solver=im.Newton()
    ).value


def derivative(x, z):
    """`∂z/∂x` of `z = cos(x z)`, by the implicit function theorem."""
    return -z * torch.sin(x * z) / (1 + x * torch.sin(x * z))


def iterated(cell, x):
    z = torch.zeros_like(x)
    for _ in range(100):
        z = cell(z, x)
    return z


# --- pullbacks that are called after their transform


@pytest.mark.parametrize("closes_over", [False, True])
def test_a_pullback_is_right_after_vjp_has_returned(closes_over):
    def solved(x):
        if closes_over:
            return im.fixed_point(lambda z: cosine(z, x), torch.ones_like(x), batch_dims=1).value
        return im.fixed_point(cosine, torch.ones_like(x), x, batch_dims=1).value

    z, pullback = torch.func.vjp(solved, X)
    cotangent = torch.tensor([1.0, -3.0], dtype=torch.float64)
    (got,) = pullback(cotangent)
    assert torch.allclose(got, cotangent * derivative(X, z), rtol=CLOSE)
    assert not got.requires_grad


def test_a_pullback_of_a_root_is_right_after_vjp_has_returned():
    z, pullback = torch.func.vjp(lambda a: im.root(lambda z, a: z**2 - a, X + 1, a).value, X)
    assert torch.allclose(pullback(torch.ones_like(X))[0], 0.5 / z, rtol=CLOSE)


def test_an_approximate_pullback_is_that_of_the_call():
    z, pullback = torch.func.vjp(lambda x: solve(x, gradient=im.JacobianFree()), X)
    assert torch.allclose(pullback(torch.ones_like(X))[0], -z * torch.sin(X * z), rtol=CLOSE)


def test_a_pullback_of_a_pullback_is_the_second_derivative():
    def gradient(x):
        return torch.func.vjp(solve, x)[1](torch.ones_like(x))[0]

    (got,) = torch.func.vjp(gradient, X)[1](torch.ones_like(X))
    step = 1e-5
    apart = derivative(X + step, solve(X + step)) - derivative(X - step, solve(X - step))
    # Central differences: truncation step² and rounding eps/step, both about 1e-10.
    assert torch.allclose(got, apart / (2 * step), rtol=1e-7)


def test_a_pullback_differentiates_a_module_after_vjp_has_returned():
    cell, x = Cell(), torch.randn(2, 3, dtype=torch.float64)
    layer = im.ImplicitLayer(cell)
    parameters = dict(cell.named_parameters())

    def call(parameters):
        return torch.func.functional_call(layer, {f"f.{k}": v for k, v in parameters.items()}, (x,))

    z, pullback = torch.func.vjp(call, parameters)
    got = pullback(torch.ones_like(z))[0]
    expected = torch.autograd.grad(iterated(cell, x).sum(), list(parameters.values()))
    for name, want in zip(parameters, expected, strict=True):
        assert torch.allclose(got[name], want, atol=CLOSE)


# --- functions that write in place


def all_in_place(z, x):
    return z.mul_(x).cos_()


def first_in_place(z, x):
    z *= 1.0
    return cosine(z, x)


def activation_in_place(z, x):
    return torch.cos(x * torch.nn.functional.relu(z, inplace=True))


SOLVERS = [None, im.FixedPointIteration(), im.Broyden(), im.NewtonKrylov(), im.DFSANE()]


@pytest.mark.parametrize("f", [all_in_place, first_in_place, activation_in_place])
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("recording", [False, True])
def test_a_function_that_writes_into_its_unknown_is_solved(f, solver, recording):
    x = torch.tensor([0.5, 0.9], dtype=torch.float64, requires_grad=recording)
    z0 = torch.full_like(x, 0.25).detach()
    z = im.fixed_point(f, z0, x, solver=solver).value
    want = solve(x.detach())
    assert torch.allclose(z, want, rtol=CLOSE)
    assert torch.equal(z0, torch.full_like(z0, 0.25))
    if recording:
        (got,) = torch.autograd.grad(z.sum(), x)
        assert torch.allclose(got, derivative(x.detach(), want), rtol=CLOSE)


@pytest.mark.parametrize(
    "solver", [im.Anderson(), im.Steffensen(), im.ReversibleIteration()], ids=str
)
def test_a_function_may_return_one_buffer_again_and_again(solver):
    buffer = torch.empty_like(X)

    def f(z, x):
        return torch.mul(torch.cos(z), 0.5 * x, out=buffer)

    with torch.no_grad():
        z = im.fixed_point(f, torch.ones_like(X), X, solver=solver).value
    assert torch.allclose(z, 0.5 * X * torch.cos(z), rtol=CLOSE)


def test_writing_into_an_argument_is_an_error():
    def f(z, x):
        x.mul_(0.5)
        return torch.cos(z) + x

    with pytest.raises(RuntimeError, match="changes its argument in place"):
        im.fixed_point(f, torch.ones_like(X), X.clone())


def test_writing_from_the_second_evaluation_on_is_an_error():
    calls = []

    def f(z, x):
        calls.append(z)
        return cosine(z, x) if len(calls) == 1 else z.mul_(x).cos_()

    with torch.no_grad(), pytest.raises(RuntimeError, match="in place in some evaluations"):
        im.fixed_point(f, torch.ones_like(X), X)


# --- inference mode, checkpoints, tracing


@pytest.mark.parametrize(
    "solver", [*SOLVERS, im.Newton(), im.ScipyRoot("hybr"), im.LevenbergMarquardt()], ids=str
)
def test_inference_mode_gives_what_no_grad_gives(solver):
    with torch.inference_mode():
        x = X / 2
        z = im.fixed_point(cosine, torch.ones_like(x), x, solver=solver).value
        root = im.root(lambda z: z - cosine(z, x), torch.ones_like(x), solver=solver).value
    with torch.no_grad():
        assert torch.allclose(z, cosine(z, X / 2), rtol=CLOSE)
        assert torch.allclose(root, z, rtol=CLOSE)


def test_a_layer_works_in_inference_mode_and_trains_afterwards():
    layer = im.ImplicitLayer(Cell(normalised=True))
    x = torch.randn(4, 3, dtype=torch.float64)
    layer.eval()
    with torch.inference_mode():
        z = layer(x)
    assert torch.allclose(z, iterated(layer.f, x), atol=CLOSE)
    layer(x).sum().backward()
    assert layer.f.linear.weight.grad is not None


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpointed_layer_has_the_gradient_of_the_layer(use_reentrant):
    layer = im.ImplicitLayer(Cell())
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    over = [x, *layer.parameters()]
    want = torch.autograd.grad(layer(x).square().sum(), over)
    checkpoint(layer, x, use_reentrant=use_reentrant).square().sum().backward()
    for tensor, gradient in zip(over, want, strict=True):
        assert torch.allclose(tensor.grad, gradient, atol=CLOSE)


def traced_pullback():
    pullback = torch.func.vjp(solve, X)[1]

    def call(u):
        return pullback(u)

    return make_fx(call)(X)


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(lambda: torch.func.linearize(solve, X), id="linearize"),
        pytest.param(lambda: make_fx(lambda x: solve(x))(X), id="make_fx"),
        pytest.param(lambda: make_fx(lambda x: solve(x), pre_dispatch=True)(X), id="pre_dispatch"),
        pytest.param(lambda: make_fx(torch.func.jacrev(lambda x: solve(x)))(X), id="jacobian"),
        traced_pullback,
    ],
)
def test_tracing_a_solve_is_an_error_that_names_the_remedy(trace):
    with pytest.raises(RuntimeError, match=r"cannot be solved while operations are traced.*jvp"):
        trace()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("made", [lambda: solve, lambda: im.ImplicitLayer(Cell())])
def test_a_trace_that_would_keep_a_number_of_iterations_is_refused(made):
    x = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace.*torch\.export takes"):
        torch.jit.trace(made(), (x,))


def test_fake_tensors_and_meta_tensors_are_refused():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(), pytest.raises(RuntimeError, match="fake tensors"):
        solve(torch.empty(2, dtype=torch.float64))
    with pytest.raises(TypeError, match="meta device"):
        solve(torch.empty(2, dtype=torch.float64, device="meta"))


# --- threads


@pytest.fixture
def switching_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("normalised", [False, True])
def test_threads_that_share_a_layer_have_right_gradients_and_leave_its_parameters(
    normalised, switching_often
):
    layer = im.ImplicitLayer(Cell(normalised)).eval()
    x = torch.randn(4, 3, dtype=torch.float64)
    weight = layer.f.linear.weight

    def gradients():
        own = x.clone().requires_grad_()
        first = torch.autograd.grad(layer(own).square().sum(), [own, weight], create_graph=True)
        return [*first, *torch.autograd.grad(first[0].square().sum(), [own, weight])]

    want = gradients()

    def work():
        for _ in range(5):
            for got, expected in zip(gradients(), want, strict=True):
                torch.testing.assert_close(got, expected)

    in_threads(work, 6)
    assert layer.f.linear.weight is weight
    assert all(type(p) is torch.nn.Parameter and p.requires_grad for p in layer.parameters())


def test_attributes_that_a_module_sets_are_kept_wherever_it_was_called():
    layer = im.ImplicitLayer(Cell())
    layer(torch.randn(2, 3, dtype=torch.float64))
    assert layer.f.calls == layer.solution.evaluations


def test_parts_that_a_module_reaches_by_other_ways_than_its_children_are_the_replica_s():
    class Listed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = Cell(normalised=True)
            self.several = [self.cell]
            self.bound = self.cell.forward

        def forward(self, z, x):
            return 0.5 * (self.several[0](z, x) + self.bound(z, x))

    module = Listed()
    direct = Listed()
    direct.load_state_dict(module.state_dict())
    layer = im.ImplicitLayer(module)
    x = torch.randn(5, 3, dtype=torch.float64)
    z = layer(x)
    # Both calls inside of one evaluation at the solution move the statistics, once each.
    direct(z.detach(), x)
    assert torch.allclose(module.cell.norm.running_mean, direct.cell.norm.running_mean)
    assert module.cell.norm.num_batches_tracked == direct.cell.norm.num_batches_tracked


# --- functions without derivatives


def through_numpy(z, x):
    return torch.from_numpy(0.5 * np.cos(z.detach().numpy())) + 0.0 * x.detach()


def detached(z, x):
    return (0.5 * torch.cos(z)).detach()


def without_grad(z, x):
    with torch.no_grad():
        return 0.5 * torch.cos(z * x)


@pytest.mark.parametrize("f", [through_numpy, detached, without_grad])
def test_a_function_without_derivatives_is_solved_by_solvers_that_need_none(f):
    x = X / X
    z = im.fixed_point(f, torch.zeros_like(x), x).value
    assert torch.allclose(z, 0.5 * torch.cos(z), rtol=CLOSE)
    for solver in (im.Broyden(), im.DFSANE()):
        root = im.root(lambda z: z - f(z, x), torch.zeros_like(x), solver=solver)
        assert torch.allclose(root.value, z, rtol=1e-7)


@pytest.mark.parametrize(
    "solver", [im.Broyden(), im.DFSANE(), im.ScipyRoot("krylov"), im.ScipyRoot("df-sane")], ids=str
)
def test_a_residual_that_is_detached_as_a_whole_is_solved_without_derivatives(solver):
    z = im.root(lambda z: (z - 0.5 * torch.cos(z)).detach(), torch.zeros_like(X), solver=solver)
    assert torch.allclose(z.value, 0.5 * torch.cos(z.value), rtol=1e-7)
    assert bool(torch.isnan(z.error))


@pytest.mark.parametrize("f", [through_numpy, detached])
def test_a_solver_that_needs_derivatives_says_that_they_are_missing(f):
    with pytest.raises(im.MissingDerivativeError, match="carries none"):
        im.fixed_point(f, torch.zeros_like(X), X, solver=im.Newton())


def test_a_gradient_that_is_lost_on_the_way_is_an_error_and_not_zero():
    x = X.clone().requires_grad_()
    z = im.fixed_point(without_grad, torch.zeros_like(x), x).value
    with pytest.raises(im.MissingDerivativeError, match="was detached"):
        z.sum().backward()


def test_an_argument_that_the_function_does_not_use_has_the_gradient_zero():
    x = X.clone().requires_grad_()
    z = im.fixed_point(lambda z, x: 0.5 * torch.cos(z), torch.zeros_like(X), x).value
    (gradient,) = torch.autograd.grad(z.sum(), x)
    assert torch.equal(gradient, torch.zeros_like(X))


# --- messages


def test_a_warning_points_at_the_line_of_the_user():
    def hopeless(z, x):
        return z + x

    accepting = {"on_failure": "warn", "stopping": im.Stopping(max_steps=2)}
    x = X.clone().requires_grad_()
    with pytest.warns(im.SolveWarning) as of_function:
        im.fixed_point(
            hopeless, torch.ones_like(X), X, solver=im.FixedPointIteration(), **accepting
        )
    with pytest.warns(im.SolveWarning) as of_layer:
        im.ImplicitLayer(hopeless, solver=im.FixedPointIteration(), **accepting)(X)
    gradient = im.Exact(solver=im.NeumannSeries(), stopping=im.Stopping(max_steps=1))
    z = im.fixed_point(cosine, torch.ones_like(x), x, gradient=gradient, on_failure="warn").value
    with pytest.warns(im.SolveWarning) as of_backward:
        z.sum().backward()
    for warned in (of_function, of_layer, of_backward):
        assert [warning.filename for warning in warned] == [__file__]


def test_a_function_that_records_gradients_itself_is_solved_without_them():
    class Recording(Cell):
        def forward(self, z, x):
            with torch.enable_grad():
                return super().forward(z, x)

    cell, x = Recording(), X.new_ones(2, 3).requires_grad_() / 2
    with torch.no_grad():
        z = im.ImplicitLayer(cell)(x)
        torch.testing.assert_close(cell(z, x).detach(), z, rtol=1e-8, atol=1e-8)
    assert not z.requires_grad


# --- hooks on all modules


@pytest.mark.parametrize("form", [im.fixed_point, im.root])
def test_operations_of_a_layer_are_counted_where_each_module_is_watched(form):
    cell, x = Cell(), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    function = cell if form is im.fixed_point else lambda z, x: cell(z, x) - z
    expected = torch.autograd.grad(iterated(cell, x).sum(), x)[0]
    cell.calls = 0
    with FlopCounterMode(display=False) as counter:
        form(function, torch.zeros(2, 3, dtype=torch.float64), x).value.sum().backward()
    torch.testing.assert_close(x.grad, expected, rtol=CLOSE, atol=CLOSE)
    # A product of a (2, 3) and a (3, 3) matrix at each call.
    assert counter.get_total_flops() >= 36 * cell.calls
