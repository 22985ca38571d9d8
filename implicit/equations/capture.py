"""Captured tensors: the ones with gradients that a function closes over.

A function may close over parameters (`lambda z, x: torch.tanh(linear(z) + x)`). If it is evaluated on
detached arguments, the gradient graph of its output comes from such tensors alone. Leaves of the graph
become arguments of the equation. A node older than the evaluation belongs to a captured tensor that
was itself computed. Its gradient would need that computation in every derivative, so it is an error.

Inside the function of another equation a tensor may stand in for one that the outer function closes over;
it counts as a leaf, whatever it was computed from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_gradtrackingtensor
from torch.autograd.graph import get_gradient_edge

from .layout import Leaves

_REMEDY = (
    "Pass it as an argument: root(F, z0, tensor) with F(z, tensor), or layer(x, tensor); "
    "or detach() it if no gradient is wanted."
)


class CapturedTensorError(ValueError):
    """A function closes over a tensor whose derivative would be lost."""


def graph_clock() -> int:
    """A number larger than the sequence number of every graph node made before in this thread."""
    with torch.enable_grad():
        node = torch.zeros((), requires_grad=True).view(1).grad_fn
    return node._sequence_nr()  # type: ignore[union-attr]


def captured_leaves(
    name: str, outputs: Iterable[Tensor], clock: int, standing_in: Leaves = ()
) -> Leaves:
    """The leaves that `outputs`, computed from detached arguments since `clock`, depend on.

    Args:
        name: The function's name in errors.
        outputs: The tensors that the function returned.
        clock: `graph_clock()` just before the function ran.
        standing_in: Tensors that take the place of captured ones, and count as leaves.

    Raises:
        CapturedTensorError: The function depends on a captured tensor that is not a leaf, or that
            carries a forward-mode tangent.
    """
    walk = _Walk(name, clock, standing_in)
    for output in outputs:
        for level in levels(output):
            if _has_tangent(level):
                raise CapturedTensorError(
                    f"{name} closes over a tensor that carries a forward-mode tangent. {_REMEDY}"
                )
            if level.requires_grad:
                walk.start(level)
    return tuple(walk.found.values())


def check_mapped(name: str, outputs: Iterable[Tensor], inputs: Iterable[Tensor]) -> None:
    """Raise a `CapturedTensorError` if a `vmap` maps an output of a function, but none of its inputs."""
    if any(_mapped(o) for o in outputs) and not any(_mapped(i) for i in inputs):
        raise CapturedTensorError(f"{name} closes over a tensor that vmap maps. {_REMEDY}")


def _mapped(tensor: Tensor) -> bool:
    return any(is_batchedtensor(level) for level in levels(tensor))


def _has_tangent(tensor: Tensor) -> bool:
    """True if a forward-mode tangent is at this level; inside of a mapped tensor it is at another one."""
    if forward_ad._current_level < 0 or is_batchedtensor(tensor):
        return False
    return forward_ad.unpack_dual(tensor).tangent is not None


def levels(tensor: Tensor) -> Iterable[Tensor]:
    """The tensor, and the tensors inside its `torch.func` wrappers, outermost first."""
    yield tensor
    while is_gradtrackingtensor(tensor) or is_batchedtensor(tensor):
        tensor = get_unwrapped(tensor)
        yield tensor


class _Walk:
    """Walk through the graph of an evaluation, which collects the leaves in `found`."""

    def __init__(self, name: str, clock: int, leaves: Leaves) -> None:
        self.found: dict[int, Tensor] = {}
        self._name, self._clock = name, clock
        self._seen: set[Any] = set()
        # Tensors and nodes at which the walk ends, at any level of transforms, and the leaf that it finds.
        self._tensors = {id(level): leaf for leaf in leaves for level in levels(leaf)}
        self._nodes = {
            level.grad_fn: leaf
            for leaf in leaves
            for level in levels(leaf)
            if level.grad_fn is not None
        }

    def start(self, output: Tensor) -> None:
        """Walk from `output`."""
        if output.grad_fn is None:
            # The function returned a captured leaf itself.
            self._find(output)
            return
        stack: list[Any] = [output.grad_fn]
        while stack:
            node = stack.pop()
            if node in self._seen:
                continue
            self._seen.add(node)
            variable = getattr(node, "variable", None)
            if variable is not None and not node.next_functions:
                self._find(variable)
            elif node in self._nodes:
                self._find(self._nodes[node])
            elif node._sequence_nr() < self._clock:
                raise CapturedTensorError(
                    f"{self._name} closes over a tensor that was computed from others "
                    f"(by {node.name()}) and requires gradients. {_REMEDY}"
                )
            else:
                stack.extend(parent for parent, _ in node.next_functions if parent is not None)

    def _find(self, tensor: Tensor) -> None:
        leaf = self._tensors.get(id(tensor), tensor)
        self.found.setdefault(id(leaf), leaf)


def check_substituted(
    name: str, outputs: Iterable[Tensor], inputs: Iterable[Tensor], originals: Leaves
) -> None:
    """Raise a `CapturedTensorError` if a graph from `inputs` to `outputs` passes one of `originals`.

    The function was evaluated with other tensors in their place, which reach torch functions alone.
    """
    inputs = list(inputs)
    wanted = {id(tensor) for tensor in originals} - {id(tensor) for tensor in inputs}
    # A tensor that a checkpoint has restored has the node of the original.
    seen: set[Any] = {get_gradient_edge(t).node for t in inputs if t.requires_grad}
    stack: list[Any] = [output.grad_fn for output in outputs if output.grad_fn is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for parent, _ in node.next_functions:
            if parent is None or parent in seen:
                continue
            if id(getattr(parent, "variable", None)) in wanted and not parent.next_functions:
                raise CapturedTensorError(
                    f"{name} closes over a tensor that it gives to an autograd function of its own or to "
                    f"compiled code ({node.name()}), where no other can take its place, and a derivative "
                    f"of a derivative is asked for. {_REMEDY}"
                )
            stack.append(parent)
