"""Layers as a part of somebody else's graph: `torch.compile(model, fullgraph=True)` and `torch.export`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import implicitly as im
import pytest
import torch
from torch import Tensor, nn

from .test_calls import ADJOINT, PLAIN, Cell, dense_gradients

D = torch.float64


class Scaled(Cell):
    """A cell with a number of Python, which becomes a part of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return super().forward(z, self.scale * x)


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The compiler's own.
        yield
    torch._dynamo.reset()


def whole(model: nn.Module) -> Any:
    return torch.compile(model, fullgraph=True, backend="eager")


def inputs(batch: int = 5) -> Tensor:
    return torch.randn(batch, 4, dtype=D)


def solved_by_hand(cell: nn.Module, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    with torch.no_grad():
        for _ in range(200):
            z = cell(z, x)
    return z


def test_a_default_layer_becomes_a_part_of_one_graph_with_its_gradient() -> None:
    cell = Cell()
    layer = im.ImplicitLayer(cell)
    x = inputs()
    z = whole(layer)(x)
    torch.testing.assert_close(z, solved_by_hand(cell, x), rtol=1e-9, atol=1e-9)
    cotangent = torch.randn_like(z)
    (weight,) = torch.autograd.grad(z, cell.W.weight, cotangent)
    expected = dense_gradients(cell, x, z, cotangent)
    torch.testing.assert_close(weight, expected, rtol=0, atol=1e-8)


@pytest.mark.long
def test_the_graph_is_made_anew_for_whatever_the_function_depends_on() -> None:
    cell = Scaled()
    compiled = whole(im.ImplicitLayer(cell, solver=im.FixedPointIteration()))
    with torch.no_grad():
        for batch, scale in ((5, 1.0), (7, 1.0), (9, 1.0), (9, 0.25)):
            cell.scale, x = scale, inputs(batch)
            torch.testing.assert_close(compiled(x), solved_by_hand(cell, x), rtol=1e-9, atol=1e-9)
        nn.init.orthogonal_(cell.W.weight, gain=0.3)
        torch.testing.assert_close(compiled(x), solved_by_hand(cell, x), rtol=1e-9, atol=1e-9)


def test_roots_start_inputs_by_name_and_the_last_solution() -> None:
    class Cubic(nn.Module):
        def forward(self, z: Tensor, *, x: Tensor) -> Tensor:
            return z**3 + z - x

    layer = im.ImplicitLayer(Cubic(), "root")
    x = torch.tensor([[10.0], [2.0]], dtype=D, requires_grad=True)
    start = torch.ones_like(x)
    layer(x=x, z0=start)
    assert layer.solution is not None
    z = whole(layer)(x=x, z0=start)
    assert z.flatten().tolist() == pytest.approx([2.0, 1.0], rel=1e-9)
    (slope,) = torch.autograd.grad(z.sum(), x)
    assert slope.flatten().tolist() == pytest.approx([1 / 13, 1 / 4], rel=1e-8)
    assert layer.solution is None  # It would be that of another call.


def test_what_is_not_solved_is_no_number_in_value_and_gradient() -> None:
    cell = Cell()
    rule = im.Stopping(max_steps=2)
    layer = im.ImplicitLayer(cell, solver=PLAIN, gradient=ADJOINT, stopping=rule)
    z = whole(layer)(inputs())
    assert bool(torch.isnan(z).all())
    (weight,) = torch.autograd.grad(z.sum(), cell.W.weight)
    assert bool(torch.isnan(weight).any())


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.long)])
def test_an_exported_layer_is_a_file_without_gradients(strict: bool, tmp_path: Path) -> None:
    cell = Cell()
    layer = im.ImplicitLayer(cell, solver=im.FixedPointIteration())
    model = nn.Sequential(nn.Linear(3, 4, dtype=D), layer)
    x = torch.randn(5, 3, dtype=D)
    program = torch.export.export(model, (x,), strict=strict)
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    other = torch.randn(5, 3, dtype=D)
    expected = solved_by_hand(cell, model[0](other).detach())
    torch.testing.assert_close(loaded(other), expected, rtol=1e-9, atol=1e-9)
    assert set(program.state_dict) == set(model.state_dict())
    loaded(other).sum().backward()
    for parameter in loaded.parameters():
        assert parameter.grad is not None
        assert bool(torch.isnan(parameter.grad).all())


class Pair(nn.Module):
    def forward(self, z: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * z[1] + x, 0.5 * z[0]


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, dtype=D)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        value: Tensor = 0.1 * self.norm(z) + x
        return value


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (im.ImplicitLayer(Cell(), solver=PLAIN, gradient=im.JacobianFree()), r"gradient=JacobianFree"),
        (im.ImplicitLayer(Pair(), init=lambda x: (x, x)), "one tensor as unknown"),
        (im.ImplicitLayer(Normed()), r"changes its buffers .* layer\.eval"),
        (im.ImplicitLayer(Cell(), batch_dims=0), "with batch_dims=1"),
        (im.ImplicitLayer(Cell(), "root", solver=im.DFSANE()), "takes one of"),
        (im.ImplicitLayer(Cell(), "root", solver=im.Anderson()), r"solver=Newton\(\)"),
    ],
    ids=["mode", "pytree", "buffers", "batch", "solver", "root"],
)  # fmt: skip
def test_layers_that_no_graph_can_hold_are_errors_that_say_why(
    layer: im.ImplicitLayer, message: str
) -> None:
    with pytest.raises(Exception, match=message):
        whole(layer)(inputs())


def test_random_numbers_are_refused_in_a_graph_and_after_one() -> None:
    class Dropping(Cell):
        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return 0.5 * nn.functional.dropout(super().forward(z, x))

    with pytest.raises(Exception, match="draws random numbers"):
        whole(im.ImplicitLayer(Dropping()))(torch.ones(3, 4, dtype=D))
    with pytest.raises(im.GraphError, match="draws random numbers"):
        im.ImplicitLayer(Dropping(), solver=im.Compiled(im.Anderson()))(torch.ones(3, 4, dtype=D))


def test_systems_that_plain_steps_do_not_solve_are_accelerated_in_the_same_graph() -> None:
    class Affine(nn.Module):
        def forward(self, z: Tensor, slope: Tensor) -> Tensor:
            return slope * z + 1

    slopes = torch.tensor([[0.3, 0.2], [-1.5, 0.1], [0.97, -0.4]], dtype=D)
    solution = im.GraphLayer(im.ImplicitLayer(Affine()), slopes).solve(slopes)
    assert solution.status.tolist() == [im.Status.CONVERGED] * 3
    torch.testing.assert_close(solution.value, 1 / (1 - slopes), rtol=1e-7, atol=0)
    # Forty plain steps come first.
    assert solution.steps[0] < 40 < min(solution.steps[1:].tolist())
