"""Slots: the tensors that a layer may be differentiated in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slot:
    """A tensor that the layer may be differentiated in.

    Attributes:
        name: `"input 0"`, `"parameter linear.weight"`, `"captured w"`.
        value: Its value, detached; of a sparse tensor the entries that it specifies.
        position: Its position among the leaves of the inputs; `None` for a captured tensor.
        leaf: The captured tensor itself; `None` for an input.
        rebuild: The map from a value to the tensor, of a sparse input.
        project: The map from a gradient in the tensor to that in the value, of a sparse input.
    """

    name: str
    value: Tensor
    position: int | None = None
    leaf: Tensor | None = None
    rebuild: Callable[[Tensor], Tensor] | None = None
    project: Callable[[Tensor], Tensor] | None = None

    @staticmethod
    def of_input(name: str, leaf: Tensor, position: int) -> Slot:
        """The slot of an input.

        Raises:
            ValueError: Its memory layout is not strided, COO or CSR.
        """
        leaf = leaf.detach()
        if leaf.layout == torch.strided:
            return Slot(name, leaf, position)
        if leaf.layout == torch.sparse_coo:
            leaf = leaf.coalesce()
            places, values = leaf.indices(), leaf.values()

            def coo(new: Tensor) -> Tensor:
                return torch.sparse_coo_tensor(
                    places, new, leaf.shape, is_coalesced=True, check_invariants=False
                )

            rebuild = coo
        elif leaf.layout == torch.sparse_csr and leaf.ndim == 2:
            rows, columns, values = leaf.crow_indices(), leaf.col_indices(), leaf.values()
            places = torch.stack(
                (torch.arange(leaf.shape[0]).repeat_interleave(rows.diff().cpu()), columns.cpu())
            ).to(values.device)

            def csr(new: Tensor) -> Tensor:
                return torch.sparse_csr_tensor(
                    rows, columns, new, leaf.shape, check_invariants=False
                )

            rebuild = csr
        else:
            raise ValueError(f"layout {leaf.layout}")

        def project(gradient: Tensor) -> Tensor:
            dense = gradient if gradient.layout == torch.strided else gradient.to_dense()
            return dense[tuple(places)]

        return Slot(name, values.clone(), position, None, rebuild, project)


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
