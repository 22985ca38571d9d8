"""Captured tensors: the ones with gradients that a function closes over.

A function may close over parameters (`lambda z, x: torch.tanh(linear(z) + x)`). If it is evaluated on
detached arguments, the gradient graph of its output comes from such tensors alone. Leaves of the graph
become arguments of the equation. A node older than the evaluation belongs to a captured tensor that
was itself computed. Its gradient would need that computation in every derivative, so it is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_gradtrackingtensor

from .exchange import ExchangeMode
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


def captured_leaves(name: str, outputs: Iterable[Tensor], clock: int) -> Leaves:
    """The leaves that `outputs`, computed from detached arguments since `clock`, depend on.

    Args:
        name: The function's name in errors.
        outputs: The tensors that the function returned.
        clock: `graph_clock()` just before the function ran.

    Raises:
        CapturedTensorError: The function depends on a captured tensor that is not a leaf, or that
            carries a forward-mode tangent.
    """
    found: dict[int, Tensor] = {}
    for output in outputs:
        for level in levels(output):
            if forward_ad.unpack_dual(level).tangent is not None:
                raise CapturedTensorError(
                    f"{name} closes over a tensor that carries a forward-mode tangent. {_REMEDY}"
                )
            if level.requires_grad:
                _walk(name, level, clock, found)
    return tuple(found.values())


def check_mapped(name: str, outputs: Iterable[Tensor], inputs: Iterable[Tensor]) -> None:
    """Raise a `CapturedTensorError` if a `vmap` maps an output of a function, but none of its inputs."""
    if any(_mapped(o) for o in outputs) and not any(_mapped(i) for i in inputs):
        raise CapturedTensorError(f"{name} closes over a tensor that vmap maps. {_REMEDY}")


def _mapped(tensor: Tensor) -> bool:
    return any(is_batchedtensor(level) for level in levels(tensor))


def levels(tensor: Tensor) -> Iterable[Tensor]:
    """The tensor, and the tensors inside its `torch.func` wrappers, outermost first."""
    yield tensor
    while is_gradtrackingtensor(tensor) or is_batchedtensor(tensor):
        tensor = get_unwrapped(tensor)
        yield tensor


def _walk(name: str, output: Tensor, clock: int, found: dict[int, Tensor]) -> None:
    if output.grad_fn is None:
        # The function returned a captured leaf itself.
        found.setdefault(id(output), output)
        return
    seen: set[Any] = set()
    stack: list[Any] = [output.grad_fn]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and not node.next_functions:
            found.setdefault(id(variable), variable)
            continue
        if node._sequence_nr() < clock:
            raise CapturedTensorError(
                f"{name} closes over a tensor that was computed from others "
                f"(by {node.name()}) and requires gradients. {_REMEDY}"
            )
        stack.extend(parent for parent, _ in node.next_functions if parent is not None)


class Substitute(ExchangeMode):
    """Mode in which every torch function gets `replacements` in place of `originals`.

    Inside `torch.func` transforms the argument at the current level must replace the captured tensor.
    """

    def __init__(self, originals: Leaves, replacements: Leaves) -> None:
        super().__init__()
        self._originals = originals
        self._by_id = dict(zip(map(id, originals), replacements, strict=True))

    def exchanged(self, tensor: Tensor) -> Tensor:
        return self._by_id.get(id(tensor), tensor)
