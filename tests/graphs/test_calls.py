"""Compiled solves in calls and layers: derivatives, functions that change, equations without a graph."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
import weakref
from typing import Any

import implicitly
import numpy as np
import pytest
import torch
from implicitly import (
    DFSANE,
    GMRES,
    Anderson,
    BiCGStab,
    Compiled,
    Exact,
    FixedPointIteration,
    GraphError,
    ImplicitLayer,
    NeumannSeries,
    Newton,
    NotCompiledWarning,
    Status,
    Stopping,
    Unrolled,
    fixed_point,
    root,
)
from implicitly.verification import Verdict, verify
from torch import Tensor, nn
from torch.fx import GraphModule

pytestmark = pytest.mark.usefixtures("forgotten")

PLAIN = Compiled(FixedPointIteration())
ADJOINT = Exact(solver=Compiled(NeumannSeries()))


class Cell(nn.Module):
    """`tanh(g W z + U x)`, a contraction for `|g| < 2`."""

    def __init__(self, n: int = 4, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.W, self.U = nn.Linear(n, n).double(), nn.Linear(n, n).double()
        nn.init.orthogonal_(self.W.weight, gain=0.5)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.gain * self.W(z) + self.U(x))


def dense_gradients(cell: Cell, x: Tensor, z: Tensor, cotangent: Tensor) -> Tensor:
    """The gradient of `W.weight`, by NumPy and dense matrices alone."""
    W, b = (p.detach().numpy() for p in (cell.W.weight, cell.W.bias))
    U, c = (p.detach().numpy() for p in (cell.U.weight, cell.U.bias))
    total = np.zeros_like(W)
    for zi, xi, gi in zip(*(t.detach().numpy() for t in (z, x, cotangent)), strict=True):
        slope = 1 - np.tanh(cell.gain * (W @ zi + b) + U @ xi + c) ** 2
        J = cell.gain * slope[:, None] * W
        u = np.linalg.solve(np.eye(len(zi)) - J.T, gi)
        total += np.outer(cell.gain * slope * u, zi)
    return torch.from_numpy(total)


def check_gradient(layer: ImplicitLayer, x: Tensor, seed: int = 0) -> None:
    """The gradient of a layer's weight beside that of dense matrices."""
    cell: Any = layer.f
    z = layer(x)
    cotangent = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).double()
    (found,) = torch.autograd.grad(z, cell.W.weight, cotangent)
    expected = dense_gradients(cell, x, z, cotangent)
    # Tolerances 1e-10 of the solve and of the adjoint, over 1 − 1/2, times 20 terms of size one.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.long
@pytest.mark.parametrize(
    "adjoint", [NeumannSeries(), BiCGStab(), GMRES()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize(
    "solver", [FixedPointIteration(), Anderson(), Newton()], ids=lambda s: type(s).__name__
)
def test_gradients_are_those_of_dense_matrices_at_every_call(
    solver: Any, adjoint: Any, interpreted: list[GraphModule]
) -> None:
    layer = ImplicitLayer(Cell(), solver=Compiled(solver), gradient=Exact(solver=Compiled(adjoint)))
    # The first call traces, the second takes the short way, the others have other numbers of systems.
    for call, batch in enumerate((5, 5, 7, 9, 5, 1)):
        check_gradient(layer, torch.randn(batch, 4, dtype=torch.float64), call)
        assert layer.solution is not None
        assert bool(layer.solution.adjoints[0].converged.all())
    # Solve and adjoint, each for one size, for all others, and for a batch of one.
    assert len(interpreted) == 6


def test_a_step_of_training_is_followed(interpreted: list[GraphModule]) -> None:
    layer = ImplicitLayer(Cell(), solver=PLAIN, gradient=ADJOINT)
    x = torch.randn(5, 4, dtype=torch.float64)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        layer(x).square().sum().backward()
        optimiser.step()
        check_gradient(layer, x)
    assert len(interpreted) == 2


def test_an_attribute_that_changes_is_seen(interpreted: list[GraphModule]) -> None:
    cell = Cell()
    layer = ImplicitLayer(cell, solver=PLAIN, gradient=ADJOINT)
    x = torch.randn(5, 4, dtype=torch.float64)
    for gain in (1.0, 1.0, 0.3, 0.3, -0.9):
        cell.gain = gain
        check_gradient(layer, x)
    # A graph that no longer fits is dropped, and the next call makes a new one.
    assert len(interpreted) >= 4


def test_a_part_a_parameter_or_a_mode_that_is_replaced_is_seen(
    interpreted: list[GraphModule],
) -> None:
    cell = Cell()
    layer = ImplicitLayer(cell, solver=PLAIN, gradient=ADJOINT)
    x = torch.randn(5, 4, dtype=torch.float64)
    for _ in range(4):
        check_gradient(layer, x)
    cell.W.weight = nn.Parameter(-0.5 * cell.W.weight.detach())
    check_gradient(layer, x)
    check_gradient(layer, x)
    cell.U = nn.Linear(4, 4).double()
    check_gradient(layer, x)
    cell.W.weight.requires_grad_(False)
    z = layer(x)
    cell.W.weight.requires_grad_(True)
    check_gradient(layer, x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), z, rtol=1e-8, atol=1e-9)

    class Switched(Cell):
        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return super().forward(z, x) if self.training else 0.5 * z + x

    switched = ImplicitLayer(Switched(), solver=PLAIN, gradient=ADJOINT)
    for _ in range(3):
        check_gradient(switched, x)
    torch.testing.assert_close(switched.eval()(x), 2 * x, rtol=1e-8, atol=1e-9)
    check_gradient(switched.train(), x)


def test_tensors_and_structures_of_them_are_told_apart(interpreted: list[GraphModule]) -> None:
    class Either(nn.Module):
        def forward(self, z: Tensor, x: Any) -> Tensor:
            return 0.5 * z + (x["a"] if isinstance(x, dict) else 2 * x)

    layer = ImplicitLayer(
        Either(), solver=PLAIN, gradient=ADJOINT, init=lambda x: torch.zeros(3, 2).double()
    )
    x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    for _ in range(3):
        for given, factor in (({"a": x}, 2.0), (x, 4.0)):
            z = layer(given)
            torch.testing.assert_close(z, factor * x, rtol=1e-8, atol=0)
            (gradient,) = torch.autograd.grad(z.sum(), x)
            torch.testing.assert_close(gradient, torch.full_like(x, factor), rtol=1e-8, atol=0)


class Reversal(torch.autograd.Function):
    """The identity, with a cotangent multiplied by a number that no value shows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return ctx.factor * cotangent, None


@pytest.mark.parametrize("where", ["input", "unknown"])
def test_a_change_that_shows_in_derivatives_alone_is_seen(
    where: str, interpreted: list[GraphModule]
) -> None:
    class Reversed(nn.Module):
        factor = 1.0

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            if where == "input":
                return 0.5 * z + Reversal.apply(x, self.factor)
            return 0.5 * Reversal.apply(z, self.factor) + x

    module = Reversed()
    layer = ImplicitLayer(module, solver=PLAIN, gradient=ADJOINT)
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    for factor in (1.0, 1.0, -0.6, -0.6):
        module.factor = factor
        (gradient,) = torch.autograd.grad(layer(x).sum(), x)
        # u = f u / 2 + 1 with the reversal in z, f (u / 2 + 1) … in x: 1 / (1 − f/2), or 2 f.
        expected = 2 * factor if where == "input" else 1 / (1 - factor / 2)
        torch.testing.assert_close(gradient, torch.full_like(x, expected), rtol=1e-8, atol=0)


def test_a_captured_tensor_that_begins_to_require_gradients_is_seen(
    interpreted: list[GraphModule],
) -> None:
    W = torch.tensor([[0.3, 0.1], [0.0, 0.4]], dtype=torch.float64)

    def f(z: Tensor, x: Tensor) -> Tensor:
        return z @ W.mT + x

    x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)

    def solved() -> Tensor:
        return fixed_point(
            f, torch.zeros_like(x), x, solver=PLAIN, gradient=ADJOINT, batch_dims=1
        ).value

    exact = torch.linalg.solve(torch.eye(2).double() - W, torch.ones(2).double())
    for _ in range(2):
        torch.testing.assert_close(solved()[0], exact)
    W.requires_grad_()
    for _ in range(3):
        (gradient,) = torch.autograd.grad(solved().sum(), W)
        # Σ uᵢ zⱼ with (I − Wᵀ) u = 1, three systems alike.
        u = torch.linalg.solve(torch.eye(2).double() - W.detach().mT, torch.ones(2).double())
        torch.testing.assert_close(gradient, 3 * torch.outer(u, exact), rtol=1e-8, atol=1e-8)


def test_functions_made_anew_share_a_graph_and_keep_their_own_constants(
    interpreted: list[GraphModule],
) -> None:
    for scale in (0.5, 0.5, 0.25):
        shift = torch.full((2,), scale, dtype=torch.float64)

        def f(z: Tensor, scale: float = scale, shift: Tensor = shift) -> Tensor:
            return scale * z + shift

        z = fixed_point(f, torch.zeros(3, 2).double(), solver=PLAIN, batch_dims=1).value
        torch.testing.assert_close(z, torch.full_like(z, scale / (1 - scale)), rtol=1e-9, atol=0)
    assert (
        len(interpreted) == 3
    )  # Other constants, another trace; the compiled library is shared by its text.


def test_a_module_with_batch_statistics_moves_them_once_a_call(
    interpreted: list[GraphModule],
) -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.normalise = nn.BatchNorm1d(3).double()

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return 0.3 * torch.tanh(z) + 0.1 * self.normalise(x + 0.1 * z)

    one, other = Normalised(), Normalised()
    x = torch.randn(6, 3, dtype=torch.float64)
    graph = ImplicitLayer(one, solver=PLAIN, gradient=ADJOINT, batch_dims=0)
    eager = ImplicitLayer(other, solver=FixedPointIteration(), batch_dims=0)
    for _ in range(3):
        torch.testing.assert_close(graph(x), eager(x), rtol=1e-8, atol=1e-9)
    counted: Any = one.normalise.num_batches_tracked
    assert int(counted) == 3
    torch.testing.assert_close(one.normalise.running_mean, other.normalise.running_mean)


def test_a_function_that_writes_to_its_unknown_leaves_it_alone(
    interpreted: list[GraphModule],
) -> None:
    start = torch.zeros(3, 2, dtype=torch.float64)

    def f(z: Tensor) -> Tensor:
        return z.mul_(0.5).add_(1.0)

    for _ in range(2):
        value = fixed_point(f, start, solver=PLAIN, batch_dims=1).value
        torch.testing.assert_close(value, torch.full_like(value, 2.0), rtol=1e-9, atol=0)
    assert not start.any()


def test_autocast_is_that_of_the_call(interpreted: list[GraphModule]) -> None:
    cell = Cell().float()
    x = torch.randn(5, 4, requires_grad=True)
    layer = ImplicitLayer(
        cell, solver=Compiled(Anderson()), gradient=Exact(solver=Compiled(GMRES()))
    )
    reference = ImplicitLayer(cell, solver=Anderson())
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            z, expected = layer(x), reference(x)
        grad, other = (torch.autograd.grad(v.sum(), x)[0] for v in (z, expected))
        # Four units of rounding of bfloat16, over 1 − 1/2.
        assert (z - expected).abs().max() <= 2 * 4 * 2**-8 * 2
        assert (grad - other).abs().max() <= 2 * 4 * 2**-8 * 4


# --- Derivatives ---------------------------------------------------------------------------------


def test_derivatives_never_pass_through_the_loop(interpreted: list[GraphModule]) -> None:
    # Those that autograd takes through a while_loop are wrong from the second iteration on.
    x = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)

    def f(z: Tensor, x: Tensor) -> Tensor:
        return torch.cos(z * x)

    for _ in range(2):
        z = fixed_point(
            f, torch.zeros_like(x), x, solver=PLAIN, gradient=ADJOINT, batch_dims=1
        ).value
        (gradient,) = torch.autograd.grad(z.sum(), x)
        s = torch.sin(z * x).item()
        assert gradient.item() == pytest.approx(-s * z.item() / (1 + s * x.item()), rel=1e-9)
    with pytest.raises(TypeError, match="runs whole"):
        fixed_point(f, torch.zeros_like(x), x, solver=PLAIN, gradient=Unrolled(), batch_dims=1)


@pytest.mark.filterwarnings("ignore::implicitly.NotCompiledWarning")
@pytest.mark.parametrize("form", ["fixed_point", "root"])
def test_every_order_of_derivatives(form: str, interpreted: list[GraphModule]) -> None:
    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    w = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=torch.float64, requires_grad=True)

    def solved(w: Tensor, x: Tensor) -> Tensor:
        # Differences over 1e-6 magnify what a solve leaves.
        tight = Stopping(rtol=1e-13)
        adjoint = Exact(solver=Compiled(GMRES()), stopping=tight)
        options: Any = {"gradient": adjoint, "batch_dims": 1, "stopping": tight}
        if form == "fixed_point":
            f = lambda z, w, x: torch.tanh(z @ w.mT + x)  # noqa: E731
            return fixed_point(
                f, torch.zeros_like(x), w, x, solver=Compiled(Anderson()), **options
            ).value
        F = lambda z, w, x: z - torch.tanh(z @ w.mT + x)  # noqa: E731
        return root(F, torch.zeros_like(x), w, x, solver=Compiled(Newton()), **options).value

    assert torch.autograd.gradcheck(solved, (w, x))
    assert torch.autograd.gradgradcheck(solved, (w, x))


def test_second_order_runs_without_a_graph_and_says_so(interpreted: list[GraphModule]) -> None:
    x = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    z = fixed_point(
        lambda z, x: 0.5 * torch.sin(z) + x, torch.zeros_like(x), x, solver=PLAIN, gradient=ADJOINT,
        batch_dims=1,
    ).value  # fmt: skip
    (first,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    with pytest.warns(NotCompiledWarning, match="second order"):
        (second,) = torch.autograd.grad(first.sum(), x)
    c, s = torch.cos(z).item() / 2, torch.sin(z).item() / 2
    assert first.item() == pytest.approx(1 / (1 - c), rel=1e-9)
    # d/dx 1 / (1 − cos(z)/2) = −(sin(z)/2) z' / (1 − cos(z)/2)².
    assert second.item() == pytest.approx(-s / (1 - c) ** 3, rel=1e-8)


def test_transforms_run_without_a_graph_and_say_so(interpreted: list[GraphModule]) -> None:
    x = torch.randn(3, 2, dtype=torch.float64)
    W = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=torch.float64)

    def solved(x: Tensor) -> Tensor:
        return fixed_point(
            lambda z, x: torch.tanh(z @ W.mT + x), torch.zeros_like(x), x, solver=PLAIN, gradient=ADJOINT,
            batch_dims=1,
        ).value  # fmt: skip

    expected = fixed_point(
        lambda z, x: torch.tanh(z @ W.mT + x), torch.zeros_like(x), x, batch_dims=1
    ).value
    slope = 1 - expected**2
    jacobian = torch.linalg.solve(
        torch.eye(2).double() - slope.unsqueeze(2) * W, torch.diag_embed(slope)
    )
    direction = torch.randn_like(x)
    with pytest.warns(NotCompiledWarning):
        value, tangent = torch.func.jvp(solved, (x,), (direction,))[:2]
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    forward = torch.einsum("bij,bj->bi", jacobian, direction)
    torch.testing.assert_close(tangent, forward, rtol=1e-8, atol=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotCompiledWarning)
        gradient = torch.func.grad(lambda x: (direction * solved(x)).sum())(x)
        backward = torch.einsum("bij,bi->bj", jacobian, direction)
        torch.testing.assert_close(gradient, backward, rtol=1e-8, atol=1e-8)
        many = torch.vmap(solved)(torch.stack((x, x)))
        torch.testing.assert_close(many[1], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.long
def test_a_layer_is_verified(interpreted: list[GraphModule]) -> None:
    layer = ImplicitLayer(Cell(), solver=PLAIN, gradient=ADJOINT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotCompiledWarning)
        report = verify(layer, (torch.randn(3, 4, dtype=torch.float64),))
    assert report.verdict == Verdict.CORRECT, str(report)


# --- Equations that have no graph ----------------------------------------------------------------


def test_random_numbers_are_refused() -> None:
    layer = ImplicitLayer(
        lambda z, x: 0.5 * nn.functional.dropout(torch.tanh(z)) + x, solver=Compiled(Anderson())
    )
    with pytest.raises(GraphError, match="draws random numbers"):
        layer(torch.randn(3, 2))


@pytest.mark.parametrize(
    "f",
    [
        lambda z, x: 0.5 * z + x if z.norm() > 1e-3 else x,
        lambda z, x: 0.5 * float(z.norm()) * z + x,
        lambda z, x: 0.5 * z + torch.from_numpy(np.sin(x.numpy())),
        lambda z, x: fixed_point(lambda y: 0.5 * y + z, torch.zeros_like(z)).value / 4 + x,
    ],
    ids=["branch", "number", "NumPy", "another solve"],
)
def test_an_equation_that_cannot_be_traced_is_a_clear_error(f: Any) -> None:
    with pytest.raises(
        GraphError, match=r"the function given as a lambda cannot be traced.*torch\.where"
    ):
        fixed_point(f, torch.zeros(3, 2), torch.ones(3, 2), solver=PLAIN, batch_dims=1)


def test_solvers_without_steps_for_a_graph_are_refused() -> None:
    with pytest.raises(TypeError, match="takes one of FixedPointIteration, Anderson"):
        Compiled(DFSANE())
    with pytest.raises(TypeError, match="cannot compile a preconditioner"):
        Compiled(GMRES(preconditioner=lambda v: v))
    with pytest.raises(TypeError, match="the class Anderson"):
        Compiled(Anderson)  # type: ignore[arg-type]


def test_callbacks_and_traces_run_without_a_graph_and_say_so(
    interpreted: list[GraphModule],
) -> None:
    seen: list[int] = []
    with pytest.warns(NotCompiledWarning, match="no callback"):
        solution = fixed_point(
            torch.cos, torch.zeros(2, 1), solver=PLAIN, batch_dims=1, trace=True,
            callback=lambda step, norms: seen.append(step),
        )  # fmt: skip
    assert not interpreted
    assert solution.trace is not None
    assert len(solution.trace) == len(seen) == int(solution.steps.max()) + 1


def test_an_empty_batch_is_solved() -> None:
    solution = fixed_point(torch.cos, torch.zeros(0, 2), solver=PLAIN, batch_dims=1)
    assert solution.value.shape == (0, 2)


def test_a_failure_is_reported_as_by_the_driver(interpreted: list[GraphModule]) -> None:
    with pytest.raises(implicitly.SolveError, match="diverge"):
        fixed_point(lambda z: 3 * z + 1, torch.zeros(2, 1), solver=PLAIN, batch_dims=1)
    accepted = fixed_point(
        lambda z: 3 * z + 1, torch.zeros(2, 1), solver=PLAIN, batch_dims=1, on_failure="accept"
    )
    assert accepted.status.tolist() == [Status.DIVERGED] * 2


def test_a_graph_keeps_no_module_alive(interpreted: list[GraphModule]) -> None:
    layer = ImplicitLayer(Cell(2), solver=PLAIN)
    layer(torch.ones(1, 2).double())
    gone = weakref.ref(layer.f)
    del layer
    gc.collect()
    assert gone() is None


def test_nothing_compiles_unless_asked_for() -> None:
    code = (
        "import sys, torch, implicitly\n"
        "x = torch.ones(3, requires_grad=True)\n"
        "implicitly.fixed_point(lambda z, x: torch.cos(z) + x, torch.zeros(3), x).value.sum().backward()\n"
        "implicitly.Compiled(implicitly.Anderson())\n"
        "assert not {'torch._inductor', 'torch._dynamo'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
