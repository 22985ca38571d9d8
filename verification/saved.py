"""Memory of a backward pass: bytes that autograd saves for it in the forward pass."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class _Saved:
    """Stand-in for a saved tensor, which lives as long as its graph."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def saved_bytes(forward: Callable[[], Any], excluding: Iterable[Tensor] = ()) -> int:
    """Bytes of the storages that `forward` leaves saved for its backward pass.

    Graphs that are built and dropped on the way (a Newton step's) do not count.

    Args:
        forward: Computes something that requires gradients, and returns it.
        excluding: Tensors that exist anyway, such as parameters.

    Returns:
        The sum over storages, each counted once however many saved tensors share it.
    """
    packed: weakref.WeakSet[_Saved] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor.detach())  # not the tensor: an output would hold its own graph
        packed.add(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        result = forward()
    storages = [saved.tensor.untyped_storage() for saved in packed]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    for tensor in excluding:
        sizes.pop(tensor.untyped_storage().data_ptr(), None)
    del result  # not before: its graph holds what was saved
    return sum(sizes.values())
