"""A layer as graphs alone, made ahead of time: for exported programs and packages without Python."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..layer import ImplicitLayer
from ..surroundings.evaluation import UserFunction
from ..surroundings.module import PureModule
from ..surroundings.replay import Replay
from .layer_graphs import GraphSolution, LayerGraphs


class GraphLayer(nn.Module):
    """The solve of an `ImplicitLayer` as one graph, and its gradient as another.

    It shares the parameters of the layer, and can be exported (`torch.export.export`), compiled as a part of
    a model (`torch.compile(model, fullgraph=True)`, also in training), and packaged (`package`). Derivatives
    are those of first order.

    Args:
        layer: A layer with a solver that `Compiled` takes (`Newton()` for roots), in `Compiled` or not, and
            for gradients `Exact()`, whose unknown and inputs are tensors and whose function is a module.
        inputs: An example of its inputs. Each whose first axis has as many entries as there are systems may
            come with another number of them, if that is at least two.

    Raises:
        TypeError: The layer has another solver, more than one tensor as its unknown, or a function that
            changes buffers.
        GraphError: Its function cannot be traced.

    Examples:
        >>> import implicitly
        >>> class Halved(torch.nn.Module):
        ...     def forward(self, z, x):
        ...         return 0.5 * z + x
        >>> solver = implicitly.FixedPointIteration()
        >>> graph = implicitly.GraphLayer(implicitly.ImplicitLayer(Halved(), solver=solver), torch.ones(3, 2))
        >>> graph(torch.ones(4, 2))[0].round(decimals=4).tolist()
        [2.0, 2.0]
    """

    def __init__(self, layer: ImplicitLayer, *inputs: Tensor) -> None:
        super().__init__()
        if not isinstance(layer.f, nn.Module):
            raise TypeError(f"GraphLayer takes a layer whose function is a module, got {layer.f!r}")
        self.layer = layer
        self._pure = PureModule(layer.f)
        start = layer.start(*inputs)
        args = (*inputs, self._pure.parameters, self._pure.buffers)
        described = f"the module {type(layer.f).__name__}"
        given = UserFunction(self._pure, described, start, args, 1, Replay(described, start, args))
        self._graphs = LayerGraphs(given, layer.settings)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The solution for these inputs; NaN for systems that are not solved, unless that is accepted."""
        value: Tensor
        value, _ = self._graphs(self.layer.start(*inputs).detach(), self._args(inputs))
        return value

    def solve(self, *inputs: Tensor) -> GraphSolution:
        """The same without derivatives, with statuses, steps and residual norms."""
        with torch.no_grad():
            return self._graphs.solve(self.layer.start(*inputs), self._args(inputs))

    def _args(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (*inputs, *self._pure.held())


def package(layer: ImplicitLayer, inputs: tuple[Tensor, ...], path: str | Path) -> Path:
    """Write a layer as a package of AOTInductor, which runs without Python.

    The package takes the inputs, and gives value, statuses, steps and residual norms. The parameters are part
    of it. In Python it is loaded by `torch._inductor.aoti_load_package`, in C++ by
    `torch::inductor::AOTIModelPackageLoader`.

    Args:
        layer: As for `GraphLayer`.
        inputs: An example of its inputs; see `GraphLayer`.
        path: The file to write, with the ending `.pt2`.

    Returns:
        The file.

    Raises:
        TypeError: See `GraphLayer`.
        GraphError: See `GraphLayer`.

    Examples:
        >>> import implicitly
        >>> implicitly.package(torch.nn.Identity(), (torch.ones(3, 2),), "layer.pt2")
        Traceback (most recent call last):
        TypeError: package takes an ImplicitLayer, got Identity()
    """
    if not isinstance(layer, ImplicitLayer):
        raise TypeError(f"package takes an ImplicitLayer, got {layer!r}")
    graph = _Solving(GraphLayer(layer, *inputs)).eval()
    batch = inputs[0].shape[0]
    symbol = torch.export.Dim("batch", min=2)
    sizes = tuple({0: symbol} if t.ndim and t.shape[0] == batch > 1 else None for t in inputs)
    with torch.no_grad():
        exported = torch.export.export(graph, inputs, dynamic_shapes=(sizes,), strict=False)
        from torch._inductor import aoti_compile_and_package

        return Path(aoti_compile_and_package(exported, package_path=str(path)))


class _Solving(nn.Module):
    """The statuses beside the value, as a module."""

    def __init__(self, graph: GraphLayer) -> None:
        super().__init__()
        self.layer = graph

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.layer.solve(*inputs))
