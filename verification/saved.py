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

    Graphs that are dropped during the call (those of Newton steps) do not count.

    Args:
        forward: Computes and returns a value that requires gradients.
        excluding: Tensors that exist independently of the call, such as parameters.

    Returns:
        The sum over storages; a storage shared by several saved tensors counts once.
    """
    packed: weakref.WeakSet[_Saved] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor.detach())  # detached, since an output would hold its own graph
        packed.add(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        result = forward()
    storages = [saved.tensor.untyped_storage() for saved in packed]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    for tensor in excluding:
        sizes.pop(tensor.untyped_storage().data_ptr(), None)
    del result  # only now, since its graph holds the saved tensors
    return sum(sizes.values())
