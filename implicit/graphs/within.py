"""A layer within somebody else's graph: `torch.compile(model, fullgraph=True)` and `torch.export`.

While such a graph is recorded, the solve of the layer is traced to graphs of its own, which become a part of
it. Its function is then evaluated once more, at the solution. So the compiler sees everything that the
function depends on, and traces anew when that changes; and a solution with another residual is NaN.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch._guards import tracing
from torch.utils._python_dispatch import _disable_current_modes

from ...solvers.interface.norms import rms
from ..calls.settings import Settings
from ..equations.layout import Leaves
from ..surroundings.arguments import describe
from ..surroundings.evaluation import UserFunction
from ..surroundings.keywords import WithKeywords, called
from ..surroundings.module import PureModule
from ..surroundings.purity import most_residual
from ..surroundings.replay import Replay
from .layer_graphs import LayerGraphs

T = TypeVar("T")
_CONSTANTS = (bool, int, float, str, type(None))
_numbers = itertools.count()


class Graphs:
    """The graphs of a layer within others, an attribute for each kind of call."""


class Layer(Protocol):
    """The parts of a layer that its graphs are made of."""

    f: Callable[..., Any]
    settings: Settings
    graphs: Graphs


def _at_tracing(function: T) -> T:
    """`function`, which the compiler calls while it traces, and whose result becomes a constant."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_at_tracing
def in_one_graph() -> bool:
    """True while operations are recorded that must all become one graph."""
    translator = _translator()
    return translator is None or bool(
        translator.one_graph or getattr(translator, "error_on_graph_break", False)
    )


def _translator() -> Any:
    """The compiler's interpreter of bytecode in this thread; `None` where operations are traced without."""
    convert = sys.modules.get("torch._dynamo.symbolic_convert")
    return None if convert is None else getattr(convert.tls, "current_tx", None)


def solved_within(
    layer: Layer, start: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]
) -> Tensor:
    """The solution of a layer as a part of a graph; NaN for systems that are not solved."""
    given = (*inputs, *keywords.values())
    _check_plain((start, *given))
    name = _build(layer, tuple(keywords), start, *given)
    graphs: LayerGraphs = getattr(layer.graphs, name)
    held: Leaves = ()
    if isinstance(layer.f, nn.Module):
        held = (*layer.f.parameters(), *layer.f.buffers())
    args = (*(arg for arg in given if isinstance(arg, Tensor)), *held)
    start, exported = start.detach(), torch.compiler.is_exporting()
    value: Tensor
    value, norm = graphs(start, tuple(arg.detach() for arg in args) if exported else args)
    # Without a block of no_grad, which exported programs with such loops cannot be loaded with.
    at = value.detach()
    found = called(layer.f, at, given, tuple(keywords)).detach()
    residual = found - at if layer.settings.form == "fixed_point" else found
    size = _norms(at) + _norms(found)
    grown = ~(_norms(residual) <= most_residual(norm, size, torch.finfo(at.dtype).eps))
    value = torch.where(grown.reshape(-1, *(1,) * (value.ndim - 1)), torch.nan, value)
    return _without_gradient(value, args) if exported else value


def _without_gradient(value: Tensor, args: Leaves) -> Tensor:
    """`value`, whose gradient in `args` is NaN: no exported program can solve the adjoint.

    Autograd would otherwise differentiate the operations of the loop, which gives another number.
    """
    for arg in args:
        if arg.is_floating_point() or arg.is_complex():
            unknown = torch.where(torch.zeros_like(arg, dtype=torch.bool), arg * torch.nan, 0).sum()
            value = value + unknown.to(value.dtype)
    return value


def _norms(z: Tensor) -> Tensor:
    return rms(z.reshape(z.shape[0], -1))


def _check_plain(given: tuple[Any, ...]) -> None:
    for position, arg in enumerate(given):
        if not isinstance(arg, (Tensor, *_CONSTANTS)) or (position == 0 and arg is None):
            what = "the start" if position == 0 else f"input {position - 1}"
            raise TypeError(
                "a layer becomes a part of a graph with one tensor as unknown and with tensors and constants "
                f"as inputs, got {type(arg).__name__} for {what}: give tensors one by one, or compile "
                "without fullgraph=True"
            )


@_at_tracing
def _build(layer: Layer, keywords: tuple[str, ...], start: Any, *given: Any) -> str:
    """Trace the graphs of a kind of call; the name of the attribute that holds them."""
    with _outside_of_tracing():
        start, *given = (_with_values(arg) for arg in (start, *given))  # type: ignore[assignment]
        function: Callable[..., Any]
        if isinstance(layer.f, nn.Module):
            described = f"the module {type(layer.f).__name__}"
            function = pure = PureModule(layer.f, keywords)
            states = ({n: _with_values(t) for n, t in pure.parameters.items()},
                      {n: _with_values(t) for n, t in pure.buffers.items()})  # fmt: skip
            if (*pure.parameters, *pure.buffers) != _names(layer.f):
                raise TypeError(
                    f"{described} has TorchScript parts, which cannot become a part of a graph"
                )
            args = (*given, *states)
        else:
            described, function = describe(layer.f), WithKeywords(layer.f, keywords)
            args = tuple(given)
        replay = Replay(described, start, args)
        user = UserFunction(function, described, start, args, layer.settings.batch_dims, replay)
        graphs = LayerGraphs(user, layer.settings)
    name = f"kind_{next(_numbers)}"
    setattr(layer.graphs, name, graphs)
    return name


def _names(module: nn.Module) -> tuple[str, ...]:
    named = (*module.named_parameters(), *module.named_buffers())
    return tuple(name for name, _ in named)


@contextmanager
def _outside_of_tracing() -> Iterator[None]:
    """A block in which tensors have values, and graphs are traced for themselves."""
    from torch.fx._lazy_graph_module import _use_lazy_graph_module

    # A lazy graph is compiled at its first call, into which the compiler does not look.
    with _use_lazy_graph_module(False), tracing(None), _disable_current_modes():
        # Exporters record even that gradients are switched on.
        with torch._C.DisableTorchFunction(), torch.inference_mode(False), torch.enable_grad():
            yield


def _with_values(arg: Any) -> Any:
    """A tensor with values in place of one that is traced; any other argument as it is."""
    if not isinstance(arg, Tensor):
        return arg
    if type(arg) in (Tensor, nn.Parameter):
        return arg.detach().requires_grad_(arg.requires_grad)
    sizes = tuple(map(int, arg.shape))
    made = torch.zeros(sizes, dtype=arg.dtype, device=arg.device)
    if made.is_floating_point():
        made.uniform_()
    return made.requires_grad_(arg.requires_grad)
