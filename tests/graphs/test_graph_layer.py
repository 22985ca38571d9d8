"""A layer as graphs alone: exported, packaged, compiled as a part of a model; and the compiler itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from implicitly import (
    GMRES,
    Aitken,
    Anderson,
    Compiled,
    Exact,
    FixedPointIteration,
    GraphLayer,
    ImplicitLayer,
    JacobianFree,
    NeumannSeries,
    Newton,
    Status,
    Stopping,
    package,
)
from torch import Tensor, nn

from .test_calls import ADJOINT, PLAIN, Cell, check_gradient, dense_gradients

pytestmark = pytest.mark.usefixtures("forgotten")


def layer_of(cell: nn.Module, **options: Any) -> ImplicitLayer:
    return ImplicitLayer(cell, solver=PLAIN, gradient=ADJOINT, **options)


@pytest.mark.long
def test_the_graph_of_a_layer_has_its_values_and_gradients_for_any_batch() -> None:
    cell = Cell()
    graph = GraphLayer(layer_of(cell), torch.randn(5, 4, dtype=torch.float64))
    for batch in (5, 7):
        x = torch.randn(batch, 4, dtype=torch.float64, requires_grad=True)
        z = graph(x)
        with torch.no_grad():
            torch.testing.assert_close(cell(z, x), z, rtol=1e-9, atol=1e-9)
        cotangent = torch.randn_like(z)
        (weight,) = torch.autograd.grad(z, cell.W.weight, cotangent, retain_graph=True)
        expected = dense_gradients(cell, x, z, cotangent)
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-8)
        solution = graph.solve(x)
        assert solution.status.tolist() == [Status.CONVERGED] * batch
        assert float(solution.residual_norm.max()) <= 1e-10


def test_a_system_that_is_not_solved_is_no_number_in_value_and_gradient() -> None:
    cell = Cell()
    layer = layer_of(cell, stopping=Stopping(max_steps=3))
    x = torch.randn(3, 4, dtype=torch.float64)
    graph = GraphLayer(layer, x)
    z = graph(x)
    assert bool(torch.isnan(z).all())
    (weight,) = torch.autograd.grad(z.sum(), cell.W.weight)
    assert bool(torch.isnan(weight).any())
    assert graph.solve(x).status.tolist() == [Status.MAX_STEPS] * 3


@pytest.mark.long
def test_a_second_derivative_through_a_graph_is_an_error_and_not_zero() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    graph = GraphLayer(layer_of(Cell()), x)
    with pytest.raises(RuntimeError, match="derivatives of first order"):
        torch.autograd.grad(graph(x).sum(), x, create_graph=True)


def test_gradients_that_a_graph_does_not_have_are_an_error() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    graph = GraphLayer(ImplicitLayer(Cell(), solver=PLAIN, gradient=JacobianFree()), x)
    with pytest.raises(
        TypeError, match=r"gradient=JacobianFree\(\.\.\.\) has no gradients in a graph"
    ):
        graph(x)
    with torch.no_grad():
        assert graph(x).shape == (3, 4)
    assert not graph.solve(x).value.requires_grad


def test_layers_that_no_graph_can_hold_are_refused() -> None:
    x = torch.ones(3, 4).double()
    with pytest.raises(TypeError, match=r"Compiled\(solver\) takes one of"):
        GraphLayer(ImplicitLayer(Cell(), solver=Aitken()), x)
    with pytest.raises(TypeError, match="whose function is a module"):
        GraphLayer(ImplicitLayer(torch.cos), x)
    with pytest.raises(TypeError, match="batch_dims=1"):
        GraphLayer(layer_of(Cell(), batch_dims=0), x)


def test_a_small_residual_far_from_a_root_is_not_called_solved() -> None:
    class Cubic(nn.Module):
        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return z**3 + z - x

    x = torch.full((2, 1), 5.0, dtype=torch.float64)
    layer = ImplicitLayer(
        Cubic(),
        "root",
        solver=Compiled(Newton()),
        init=lambda x: torch.tensor([[1e5], [1.0]]).double(),
    )
    solution = GraphLayer(layer, x).solve(x)
    # The residual at 45 is 1e-10 of that at 1e5, and the root is at 1.516.
    assert solution.status.tolist() == [Status.STALLED, Status.CONVERGED]
    assert solution.value[1].item() == pytest.approx(1.5159802276928, rel=1e-10)
    with pytest.raises(TypeError, match=r"root is found in a graph by solver=Newton"):
        GraphLayer(ImplicitLayer(Cubic(), "root", solver=Compiled(Anderson())), x)


class Net(nn.Module):
    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, 4), middle, nn.Linear(4, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.last(self.middle(self.first(x)))
        return value


def gradients(net: Net, model: Any, x: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(model(x).square().sum(), list(net.parameters()))


@pytest.mark.long
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_a_model_in_training_is_one_graph(backend: str) -> None:
    cell = Cell()
    layer = layer_of(cell)
    net = Net(GraphLayer(layer, torch.randn(5, 4, dtype=torch.float64)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The compiler's own.
        compiled = torch.compile(net, fullgraph=True, backend=backend)
        x = torch.randn(6, 3, dtype=torch.float64)
        found = gradients(net, compiled, x)
    for one, other in zip(found, gradients(net, net, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.long
def test_a_package_gives_what_the_layer_gives(tmp_path: Path) -> None:
    layer = layer_of(Cell())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The compiler's own.
        path = package(layer, (torch.randn(5, 4, dtype=torch.float64),), tmp_path / "layer.pt2")
        loaded = torch._inductor.aoti_load_package(str(path))
    reference = ImplicitLayer(layer.f, solver=FixedPointIteration())
    for batch in (5, 3, 40):
        x = torch.randn(batch, 4, dtype=torch.float64)
        value, status, steps, norms = loaded(x)
        torch.testing.assert_close(value, reference(x), rtol=1e-8, atol=1e-9)
        assert status.tolist() == [Status.CONVERGED] * batch
        assert reference.solution is not None
        assert (steps - reference.solution.steps).abs().max() <= 1
        assert float(norms.max()) <= 1e-10


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_compiled_code_solves_and_differentiates_batches_of_any_size(dtype: torch.dtype) -> None:
    cell = Cell()
    solver, adjoint = Compiled(Anderson()), Exact(solver=Compiled(GMRES()))
    layer = ImplicitLayer(cell, solver=solver, gradient=adjoint)
    if dtype == torch.float64:
        for call, batch in enumerate((5, 5, 7, 9, 200, 1)):
            check_gradient(layer, torch.randn(batch, 4, dtype=dtype), call)
        return
    cell.float()
    reference = ImplicitLayer(cell, solver=Anderson())
    for batch in (5, 7, 9):
        x = torch.randn(batch, 4)
        one, other = layer(x), reference(x)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        (a,) = torch.autograd.grad(one.sum(), cell.W.weight)
        (b,) = torch.autograd.grad(other.sum(), cell.W.weight)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_compiled_code_leaves_its_inputs_and_the_neighbours_of_a_bad_system_alone() -> None:
    cell = Cell()
    layer = ImplicitLayer(
        cell, solver=PLAIN, gradient=Exact(solver=Compiled(NeumannSeries())), on_failure="accept"
    )
    x = torch.randn(6, 4, dtype=torch.float64)
    start = torch.zeros(12, 4, dtype=torch.float64)[
        ::2
    ]  # A view, which is no solid piece of memory.
    before = x.clone()
    healthy = layer(x, z0=start)
    bad = x.clone()
    bad[2] = torch.nan
    beside = layer(bad, z0=start)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(beside[others], healthy[others])
    assert torch.equal(x, before)
    assert not start.any()
    wide = torch.randn(4, 6, dtype=torch.float64).mT  # Strides that are not those of the graph.
    check_gradient(layer, wide)
    check_gradient(layer, torch.randn(1, 4, dtype=torch.float64).expand(6, 4))


def test_a_graph_has_the_tensors_that_its_module_holds_now() -> None:
    cell = Cell()
    x = torch.randn(3, 4, dtype=torch.float64)
    graph = GraphLayer(layer_of(cell), x)
    cell.W.weight = nn.Parameter(0.5 * cell.W.weight.detach())
    with torch.no_grad():
        z = graph(x)
        torch.testing.assert_close(cell(z, x), z, rtol=1e-9, atol=1e-9)
