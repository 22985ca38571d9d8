"""Memory of traced equations, so that calls with the same function share a graph."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...solvers.interface.traced import Part, Trace, TracedEquation
from ..equations.equation import Equation
from ..equations.identity import Holder, Identity
from ..equations.layout import Layout, Leaves
from .tracing import Example, Sizes, trace

# Functions whose graphs are kept, and graphs of one function for different shapes.
_MOST_FUNCTIONS, _MOST_SHAPES = 64, 8
# Shapes of which a graph remembers that it holds for them.
_MOST_KNOWN = 256


@dataclass
class _Entry:
    """A graph with the shapes it was made for, and the constants that are the last of its inputs."""

    trace: Trace
    shapes: tuple[Any, ...]
    symbols: Sizes
    constants: Leaves
    holder: Holder
    admitted: dict[Any, bool] = field(default_factory=dict)

    def admits(self, z: Tensor, inputs: Leaves) -> bool:
        """True if the graph holds for tensors of these shapes; found out once for each."""
        # Code compiled of a graph may ask for more of its sizes.
        key = (len(self.trace.parts), z.shape, *(tensor.shape for tensor in inputs))
        found = self.admitted.get(key)
        if found is None:
            if len(self.admitted) >= _MOST_KNOWN:
                self.admitted.clear()
            found = self.admitted[key] = self.trace.admits(z, inputs)
        return found


class GraphMemory:
    """Graphs by the identity of their functions; the least recently used are dropped."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, list[_Entry]] = OrderedDict()
        self._lock = threading.RLock()

    def clear(self) -> None:
        """Forget all graphs, and the compiled solves with them."""
        with self._lock:
            self._entries.clear()

    def find(
        self, equation: Equation, layout: Layout, args: Leaves, part: Part, z: Tensor
    ) -> TracedEquation:
        """The graph of a part of an equation at these arguments, traced if there is none yet.

        Raises:
            GraphError: The equation cannot be traced.
        """
        identity = equation.identity()
        with self._lock:
            known = self.known(equation, identity, layout, args, part, z)
            if known is not None:
                return known
            key = _key(equation, identity, layout, args, part, z)
            entries = self._entries.setdefault(key, [])
            entry = self._traced(equation, Example(layout, args, z.device), part, entries)
            entry.holder = Holder(identity.objects)
            entries.insert(0, entry)
            del entries[_MOST_SHAPES:]
            while len(self._entries) > _MOST_FUNCTIONS:
                self._entries.popitem(last=False)
        inputs = (*args, *entry.constants)
        return TracedEquation(entry.trace, inputs, self._forgetter(key, entry))

    def known(
        self,
        equation: Equation,
        identity: Identity,
        layout: Layout,
        args: Leaves,
        part: Part,
        z: Tensor,
    ) -> TracedEquation | None:
        """The graph if there is one already."""
        key = _key(equation, identity, layout, args, part, z)
        with self._lock:
            entries = self._entries.get(key)
            if entries is None:
                return None
            self._entries.move_to_end(key)
            for entry in entries:
                inputs = (*args, *entry.constants)
                if entry.holder.holds(identity.objects) and entry.admits(z, inputs):
                    return TracedEquation(entry.trace, inputs, self._forgetter(key, entry))
        return None

    def _traced(
        self, equation: Equation, example: Example, part: Part, entries: list[_Entry]
    ) -> _Entry:
        """A new graph; sizes that differ from those of the last one are symbols."""
        shapes = example.shapes
        symbols: Sizes = tuple((False,) * len(shape) for shape in shapes)
        if entries and _alike(entries[0], example):
            symbols = _changed(entries[0], shapes)
        made, constants = trace(equation, part, example, symbols)
        return _Entry(made, shapes, symbols, constants, Holder(()))

    def _forgetter(self, key: Hashable, entry: _Entry) -> Callable[[], None]:
        def forget() -> None:
            with self._lock:
                entries = self._entries.get(key, [])
                if entry in entries:
                    entries.remove(entry)

        return forget


def _alike(entry: _Entry, example: Example) -> bool:
    """True if only the number of systems differs in the unknown, along one axis."""
    count = len(example.layout.shapes)
    return len(example.layout.batch_shape) == 1 and all(
        now[1:] == before[1:]
        for now, before in zip(example.layout.shapes, entry.shapes[:count], strict=True)
    )


def _changed(entry: _Entry, shapes: tuple[Any, ...]) -> Sizes:
    """The axes whose sizes differ from those that a graph was made for, or were symbols there.

    A size of one broadcasts, and is never a symbol.
    """
    return tuple(
        tuple(
            min(new, old) > 1 and (was or new != old)
            for new, old, was in zip(now, before, symbol, strict=True)
        )
        for now, before, symbol in zip(shapes, entry.shapes, entry.symbols, strict=True)
    )


def _key(
    equation: Equation, identity: Identity, layout: Layout, args: Leaves, part: Part, z: Tensor
) -> Hashable:
    return (
        identity.key, part, equation.form, equation.batch_dims, layout.dtypes, z.device,
        tuple((arg.dtype, arg.ndim, arg.device) for arg in args),
    )  # fmt: skip


MEMORY = GraphMemory()
"""The graphs of this process."""
