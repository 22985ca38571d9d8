"""An equation as a graph of tensor operations, for solvers that compile whole solves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import GraphModule

Part = Literal["function", "operator", "jacobian"]


class GraphError(TypeError):
    """An equation cannot be written as a graph of tensor operations."""


@dataclass
class Trace:
    """A graph of one part of an equation, without the tensors that it is evaluated on.

    Attributes:
        graph: Takes the unknown or a vector, `(batch, n)`, and `inputs`; its value is `(batch, n)`, of the
            part `"jacobian"` a pair of the value and the matrices, `(batch, n, n)`.
        unknown: The unknown as it was while the graph was made, without values.
        inputs: The inputs likewise.
        admits: True if the graph holds for tensors of these shapes too; its sizes may be symbols.
        parts: Whatever is made of the graph, by name: compiled solves.
    """

    graph: GraphModule
    unknown: Tensor
    inputs: tuple[Tensor, ...]
    admits: Callable[[Tensor, tuple[Tensor, ...]], bool]
    mode: Any
    parts: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TracedEquation:
    """A graph of one part of an equation, and the tensors that it depends on.

    Attributes:
        trace: The graph.
        inputs: Every tensor but the unknown that the part depends on: arguments, parameters, and constants
            that the function closes over.
        forget: Drops the graph: the equation is no longer the one that was traced.
    """

    trace: Trace
    inputs: tuple[Tensor, ...]
    forget: Callable[[], None]

    def value(self, z: Tensor) -> Any:
        """The value of the graph at `z`, operation by operation."""
        with torch.no_grad():
            return self.trace.graph(z, *self.inputs)
