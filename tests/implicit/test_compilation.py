"""Layers inside a model that `torch.compile` compiles, and compiled functions of equations."""

import implicitly as im
import pytest
import torch

# By the compiler itself, which looks at tensors behind any graph break.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")

D = torch.float64
CLOSE = 1e-8


class Cell(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3, dtype=D)
        torch.nn.init.orthogonal_(self.linear.weight, gain=0.5)

    def forward(self, z, x):
        return torch.tanh(self.linear(z) + x)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.layer = torch.nn.Linear(2, 3, dtype=D), im.ImplicitLayer(Cell())

    def forward(self, x):
        return self.layer(self.before(x)).square().sum()


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def solved(a):
    return im.root(lambda z, a: z**2 - a, torch.ones_like(2 * a), 2 * a).value.sum()


@pytest.mark.parametrize("make", [Model, lambda: solved], ids=["layer", "root"])
def test_a_compiled_model_breaks_its_graph_once_at_each_solve(make):
    model, x = make(), torch.rand(4, 2, dtype=D) + 0.5
    compiled = torch.compile(model, backend="eager")
    gradients = []
    for call in (model, compiled):
        own = x.clone().requires_grad_()
        over = [own, *(model.parameters() if isinstance(model, torch.nn.Module) else ())]
        value = call(own)
        gradients.append((value.detach(), *torch.autograd.grad(value, over)))
    for got, want in zip(*gradients, strict=True):
        assert torch.allclose(got, want, rtol=CLOSE)
    assert len(torch._dynamo.utils.counters["graph_break"]) == 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


def test_a_solve_that_is_no_layer_is_an_error_in_one_graph_that_names_the_layer():
    x = torch.rand(4, 2, dtype=D)
    with pytest.raises(
        torch._dynamo.exc.Unsupported, match=r"(?s)iterations of a solve.*ImplicitLayer"
    ):
        torch.compile(solved, backend="eager", fullgraph=True)(x)

    class Solved(torch.nn.Module):
        def forward(self, x):
            return solved(x)

    with pytest.raises(im.TracingError, match=r"torch\.export.*ImplicitLayer"):
        torch.export.export(Solved(), (x,), strict=False)


def test_a_compiled_function_of_an_equation_in_a_compiled_model():
    cell = Cell()
    layer = im.ImplicitLayer(torch.compile(cell, backend="eager"))
    x = torch.rand(4, 3, dtype=D)
    compiled = torch.compile(lambda x: layer(2 * x).sum(), backend="eager")
    over = list(cell.parameters())
    z = torch.zeros_like(x)
    for _ in range(60):
        z = cell(z, 2 * x)
    want = torch.autograd.grad(z.sum(), over)
    for got, gradient in zip(torch.autograd.grad(compiled(x), over), want, strict=True):
        assert torch.allclose(got, gradient, rtol=CLOSE)
