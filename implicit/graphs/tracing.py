"""An equation traced to a graph of tensor operations, whose inputs are all tensors that it depends on.

The function is called once on tensors without values (fake tensors), and its operations are recorded. So
numbers of Python become part of the graph, and a branch that depends on values cannot be recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from ...solvers.interface.traced import GraphError, Part, Trace
from ..equations.differentiation import matrix, pullback
from ..equations.equation import Equation
from ..equations.layout import Layout, Leaves
from ..surroundings.draws import refuse_in_graph

_OWN = "implicitly."
_REASONS = (
    "A graph holds operations of PyTorch on the unknown and the arguments alone: no branch of Python on "
    "values of tensors (if z.norm() > 1, float(z)), no NumPy, no shapes that depend on values, no other "
    "call of this package. Use torch.where, or solve without Compiled"
)
Sizes = tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class Example:
    """Tensors of one call, whose shapes a graph is traced for.

    Attributes:
        layout: The layout of the unknown.
        args: The arguments.
        device: The device of the unknown.
    """

    layout: Layout
    args: Leaves
    device: torch.device

    @property
    def shapes(self) -> tuple[torch.Size, ...]:
        """The shapes of the leaves of the unknown and of the arguments."""
        return (*self.layout.shapes, *(arg.shape for arg in self.args))


def trace_product(
    equation: Equation, example: Example, symbols: Sizes
) -> tuple[GraphModule, Leaves]:
    """The graph of the products of a cotangent with the derivatives of an equation in its arguments.

    It takes the cotangent, `(batch, n)`, the unknown in its shape, and the arguments, and gives a product for
    each argument of floating point; constants are the last of its inputs.
    """
    count = len(example.layout.shapes)
    leaves = tuple(
        torch.empty(shape, dtype=dtype, device=example.device)
        for shape, dtype in zip(example.layout.shapes, example.layout.dtypes, strict=True)
    )
    wider = Example(example.layout, (*leaves, *example.args), example.device)

    def product(u: Tensor, *tensors: Tensor) -> Leaves:
        z, args = tensors[:count], tensors[count:]
        layout = example.layout.restricted(u.shape[0])
        needed = [i for i, arg in enumerate(args) if arg.is_floating_point()]
        return equation.pullback_arguments(z, args, needed)[1](layout.unflatten(u))

    made, constants = _traced(
        equation, product, wider, (*symbols[:count], *symbols[:count], *symbols[count:])
    )
    return made.graph, constants


def trace(equation: Equation, part: Part, example: Example, symbols: Sizes) -> tuple[Trace, Leaves]:
    """The graph of a part of an equation, and the constants that are the last of its inputs.

    Args:
        equation: The equation.
        part: Its function, its linear part, or its value with all Jacobians.
        example: Tensors of a call.
        symbols: For each leaf and argument the axes whose size is to be a symbol.

    Raises:
        GraphError: Its operations cannot be recorded, or draw random numbers.
    """
    return _traced(equation, _part(equation, part, example.layout), example, symbols)


def _traced(
    equation: Equation, function: Callable[..., Any], example: Example, symbols: Sizes
) -> tuple[Trace, Leaves]:
    """The graph of a function of the unknown and the arguments."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    environment = ShapeEnv()
    mode = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
    layout, count = example.layout, len(example.layout.shapes)
    start = torch.empty(
        layout.systems, sum(layout.sizes), dtype=layout.dtype, device=example.device
    )
    unknown = _fake(mode, start, (any(symbols[0][:1]), False))
    args = tuple(
        _fake(mode, arg.detach().contiguous(), axes)
        for arg, axes in zip(example.args, symbols[count:], strict=True)
    )
    with mode, torch.no_grad():
        try:
            graph = make_fx(function)(unknown, *args)
            graph = _without_writes(graph, (unknown, *args))
        except GraphError:
            raise
        except Exception as error:
            raise GraphError(
                f"{equation.described} cannot be traced to a graph: {_first_line(error)}. {_REASONS}"
            ) from error
    _refuse_random(equation, graph)
    constants = _lift(graph)
    with mode:
        lifted = tuple(mode.from_tensor(constant, static_shapes=True) for constant in constants)

    def admits(z: Tensor, inputs: Leaves) -> bool:
        fake: Any = (unknown, *args, *lifted)
        # Compiled code gets tensors that are contiguous.
        given = tuple(torch.empty(t.shape, dtype=t.dtype, device="meta") for t in (z, *inputs))
        return _fit(fake, given) and environment.evaluate_guards_for_args(fake, given)

    return Trace(graph, unknown, (*args, *lifted), admits, mode), constants


def _fake(mode: Any, tensor: Tensor, axes: tuple[bool, ...]) -> Tensor:
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    sizes = [DimDynamic.DYNAMIC if symbol else DimDynamic.STATIC for symbol in axes]
    context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
    fake: Tensor = mode.from_tensor(tensor, symbolic_context=context)
    return fake


def _fit(fake: Leaves, given: Leaves) -> bool:
    """True if the numbers of axes, the dtypes and the sizes that are no symbols agree."""
    return len(fake) == len(given) and all(
        f.ndim == g.ndim
        and f.dtype == g.dtype
        and all(not isinstance(a, int) or a == b for a, b in zip(f.shape, g.shape, strict=True))
        for f, g in zip(fake, given, strict=True)
    )


def _part(equation: Equation, part: Part, layout: Layout) -> Callable[..., Any]:
    """A part of the equation on flat tensors, as a function of the unknown and the arguments."""

    def on(z: Tensor) -> Layout:
        # Its number of systems may be a symbol.
        return layout.restricted(z.shape[0]) if len(layout.batch_shape) == 1 else layout

    def function(z: Tensor, *args: Tensor) -> Tensor:
        return on(z).flatten(equation.bind(args).function(on(z).unflatten(z)))

    def operator(v: Tensor, *args: Tensor) -> Tensor:
        linear = equation.bind(args).operator
        if linear is None:
            raise GraphError(f"{equation.described} is not known to be linear")
        return on(v).flatten(linear(on(v).unflatten(v)))

    def jacobian(z: Tensor, *args: Tensor) -> tuple[Tensor, Tensor]:
        (value,), back = pullback(lambda z: (function(z, *args),), (z,))
        return value.detach(), matrix(lambda u: back((u,))[0], z).mT

    parts: dict[Part, Callable[..., Any]] = {
        "function": function,
        "operator": operator,
        "jacobian": jacobian,
    }
    return parts[part]


def _without_writes(graph: GraphModule, fakes: Leaves) -> GraphModule:
    """The graph with operations that make new tensors in place of those that write to one."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def writes(node: Any) -> bool:
        schema = getattr(node.target, "_schema", None)
        return schema is not None and schema.is_mutable

    if any(writes(node) for node in graph.graph.nodes):
        graph = make_fx(torch.func.functionalize(graph, remove="mutations"))(*fakes)
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _refuse_random(equation: Equation, graph: GraphModule) -> None:
    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            refuse_in_graph(equation.described, node.target)


def _lift(graph: GraphModule) -> Leaves:
    """Make inputs of the tensors that are part of the graph, and return them."""
    constants: dict[str, Tensor] = {}
    nodes = graph.graph.nodes
    last = [node for node in nodes if node.op == "placeholder"][-1]
    placed: dict[str, Any] = {}
    for node in list(nodes):
        if node.op != "get_attr" or not isinstance(getattr(graph, node.target, None), Tensor):
            continue
        if node.target not in placed:
            constants[node.target] = getattr(graph, node.target)
            with graph.graph.inserting_after(last):
                last = placed[node.target] = graph.graph.placeholder(f"constant_{len(placed)}")
            last.meta = dict(node.meta)
        node.replace_all_uses_with(placed[node.target])
        graph.graph.erase_node(node)
    for name in constants:
        delattr(graph, name)
    graph.recompile()
    return tuple(constants.values())


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line[:200]}"
