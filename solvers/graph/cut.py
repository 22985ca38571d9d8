"""A graph cut at its unknown: work that does not depend on it is done once, before a loop.

Of an adjoint equation this leaves products with the transposed Jacobian at one point, without the evaluation
at that point; of a network it takes the injection of the input out of the loop.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

_ATEN = torch.ops.aten
# Views cost nothing, and are made again in each iteration: a view is never carried into a loop.
_VIEWS = {
    _ATEN.transpose.int, _ATEN.t.default, _ATEN.permute.default, _ATEN.view.default, _ATEN.alias.default,
    _ATEN.unsqueeze.default, _ATEN.squeeze.dim, _ATEN.squeeze.dims, _ATEN.squeeze.default,
    _ATEN.expand.default, _ATEN.slice.Tensor, _ATEN.select.int, _ATEN.sym_size.int, _ATEN.unbind.int,
    _ATEN.split.Tensor, _ATEN.split_with_sizes.default, _ATEN.chunk.default, operator.getitem,
}  # fmt: skip


@dataclass(frozen=True)
class Cut:
    """A graph in two parts.

    Attributes:
        before: Takes the inputs and gives the tensors that are kept.
        after: Takes the unknown, then `needed` of the inputs, then the kept tensors.
        needed: Positions of the inputs that `after` takes.
    """

    before: GraphModule
    after: GraphModule
    needed: tuple[int, ...]

    def prepare(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All that `after` takes behind the unknown."""
        return (*(inputs[i] for i in self.needed), *self.before(*inputs))


def cut(graph: GraphModule) -> Cut:
    """The two parts of a graph whose first input is the unknown."""
    nodes = list(graph.graph.nodes)
    unknown, *inputs = [node for node in nodes if node.op == "placeholder"]
    result = nodes[-1]
    dependent = _dependent(nodes, unknown)
    wanted: set[Node] = set()
    again: set[Node] = set()
    stack = [
        source for node in (*dependent, result) for source in node.all_input_nodes
        if source not in dependent
    ]  # fmt: skip
    while stack:
        node = stack.pop()
        if node in wanted or node in again:
            continue
        if node.op != "placeholder" and _is_view(node):
            again.add(node)
            stack.extend(node.all_input_nodes)
        else:
            wanted.add(node)
    kept = [node for node in nodes if node in wanted and node.op not in ("placeholder", "get_attr")]
    again |= {node for node in wanted if node.op == "get_attr"}
    needed = tuple(i for i, node in enumerate(inputs) if node in wanted)
    inside = dependent | again
    return Cut(
        _part(graph, inputs, [n for n in nodes if n not in dependent], tuple(kept)),
        _part(
            graph,
            (unknown, *(inputs[i] for i in needed), *kept),
            [node for node in nodes if node in inside],
            result.args[0],
        ),
        needed,
    )


def _dependent(nodes: Iterable[Node], unknown: Node) -> set[Node]:
    found = {unknown}
    for node in nodes:
        if node.op != "output" and any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _is_view(node: Node) -> bool:
    return node.op == "call_function" and node.target in _VIEWS


def _part(
    whole: GraphModule, inputs: Sequence[Node], nodes: Iterable[Node], result: Any
) -> GraphModule:
    """A graph of some of the nodes; the value of each of `inputs` is given."""
    graph = Graph()
    made = {node: graph.placeholder(f"input_{place}") for place, node in enumerate(inputs)}
    for node in nodes:
        if node not in made and node.op not in ("placeholder", "output"):
            made[node] = graph.node_copy(node, made.__getitem__)
    graph.output(torch.fx.node.map_arg(result, made.__getitem__))
    graph.eliminate_dead_code()
    return GraphModule(whole, graph)
