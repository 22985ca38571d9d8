"""Slots: the tensors that a layer may be differentiated in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Slot:
    """A tensor that the layer may be differentiated in.

    Attributes:
        name: `"input 0"`, `"parameter linear.weight"`, `"captured w"`.
        value: Its value, detached.
        position: Its position among the leaves of the inputs; `None` for a captured tensor.
        leaf: The captured tensor itself; `None` for an input.
    """

    name: str
    value: Tensor
    position: int | None = None
    leaf: Tensor | None = None


@contextmanager
def written(slots: Sequence[Slot], values: Sequence[Tensor]) -> Iterator[None]:
    """Give captured tensors and parameters other values while active."""
    changed = [
        (slot.leaf, slot.value, value)
        for slot, value in zip(slots, values, strict=True)
        if slot.leaf is not None and value is not slot.value
    ]
    try:
        for leaf, _, value in changed:
            leaf.data.copy_(value)
        yield
    finally:
        for leaf, before, _ in changed:
            leaf.data.copy_(before)
