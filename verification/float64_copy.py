"""The layer in float64: the same function, whose differences show no rounding of a narrower dtype.

A module is copied and converted. Whatever else a layer reaches is widened at its use, by a mode of torch
functions; conversions and autocast inside of the layer are without effect there. The copy counts only if
its values are those of the layer up to the layer's own rounding. A layer that asks for its dtype, or calls
compiled code, may have none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .double import DoubleThroughout
from .real import differentiable, real, size_of, wide_dtype, widened
from .subject import LayerError, Slot, Subject, Tape

_SAME = 64.0
"""Values of the copy may differ from the layer's by this multiple of the layer's own rounding."""


def dtypes_inside(outputs: Iterable[Tensor]) -> set[torch.dtype]:
    """The floating-point dtypes of the intermediate results in an autograd graph.

    Examples:
        >>> x = torch.ones(2, dtype=torch.float64, requires_grad=True)
        >>> dtypes_inside([x.half().sin().double()]) == {torch.float16, torch.float64}
        True
    """
    found: set[torch.dtype] = set()
    seen: set[Any] = set()
    stack: list[Any] = [(output.grad_fn, output.output_nr) for output in outputs]
    while stack:
        node, result = stack.pop()
        if node is None:
            continue
        metadata = getattr(node, "_input_metadata", ())
        if result < len(metadata):
            dtype = metadata[result].dtype
            if dtype.is_floating_point or dtype.is_complex:
                found.add(dtype)
        if node not in seen:
            seen.add(node)
            stack.extend(node.next_functions)
    return found


def float64_copy(subject: Subject, tape: Tape, rounding: float) -> tuple[Subject, Tape] | None:
    """The layer in float64 with its first call; `None` if it has none, or is another function there.

    Args:
        subject: The layer.
        tape: A call of it.
        rounding: Relative rounding of its values.
    """
    layer, copies = _copied(subject.layer)
    other = copy.copy(subject)
    other.layer = layer
    other.inputs = replace(
        subject.inputs,
        leaves=tuple(
            widened(leaf) if differentiable(leaf) and leaf.layout == torch.strided else leaf
            for leaf in subject.inputs.leaves
        ),
    )
    other.slots, other.originals = _wide_slots(subject, copies)
    other.observed = set()
    own = _drawn_in(subject)
    originals = tuple(other.originals.values())
    leaves = tuple(_leaf(other.slots[position]) for position in other.originals)
    other.around = partial(DoubleThroughout, originals, leaves, own)
    try:
        there = other.tape()
    except LayerError:
        return None
    for value, wide in zip(tape.values, there.values, strict=True):
        if wide.dtype != wide_dtype(value.dtype) or wide.shape != value.shape or not there.finite:
            return None
        distance = float((real(value) - real(wide)).norm())
        if not distance <= _SAME * rounding * size_of(value):
            return None
    return other, there


def _copied(layer: Callable[..., Any]) -> tuple[Callable[..., Any], dict[int, Tensor]]:
    """A module in float64, with its parameters by those of the original; any other layer itself."""
    plain = uncompiled(layer)
    if plain is not None:
        layer = plain  # Compiled code is not reached by modes.
    if not isinstance(layer, nn.Module):
        return layer, {}
    try:
        made = copy.deepcopy(layer).double()
    except Exception:
        # A module may hold objects that cannot be copied; its tensors are then widened at their use.
        return layer, {}
    pairs = zip(layer.parameters(), made.parameters(), strict=True)
    return made, {id(own): new for own, new in pairs}


def uncompiled(layer: Callable[..., Any]) -> Callable[..., Any] | None:
    """The layer that `torch.compile` compiled, or `None` if it did not."""
    plain = getattr(layer, "_orig_mod", None)
    return getattr(layer, "_torchdynamo_orig_callable", None) if plain is None else plain


def _wide_slots(
    subject: Subject, copies: dict[int, Tensor]
) -> tuple[tuple[Slot, ...], dict[int, Tensor]]:
    """The slots in float64, and the captured tensors that are replaced in calls, by position."""
    slots: list[Slot] = []
    originals: dict[int, Tensor] = {}
    for position, slot in enumerate(subject.slots):
        value = widened(slot.value)
        leaf = slot.leaf
        if leaf is not None:
            if id(leaf) not in copies:
                originals[position] = leaf
                leaf = value.clone().requires_grad_()
            else:
                leaf = copies[id(leaf)]
        slots.append(replace(slot, value=value, leaf=leaf))
    return tuple(slots), originals


def _leaf(slot: Slot) -> Tensor:
    if slot.leaf is None:
        raise ValueError(f"{slot.name} is an input")
    return slot.leaf


def _drawn_in(subject: Subject) -> torch.dtype:
    """The dtype in which the layer draws random numbers: the coarsest of its slots."""
    dtypes = [slot.value.real.dtype for slot in subject.slots]
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float64)
