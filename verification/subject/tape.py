"""Tape: one call of a layer with its autograd graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .errors import foreign_errors

Tensors = tuple[Tensor, ...]
Project = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tape:
    """One call of the layer, and its derivatives by autograd.

    Attributes:
        outputs: The differentiable outputs, attached.
        tensors: The tensor in each slot.
        whole: The output as the layer returned it.
        projections: The map from the gradient in a tensor to that in its slot, by position, where they
            differ: the entries of a sparse tensor.
        originals: Further tensors by position, whose gradients belong to the slot too.
        around: Context of the backward pass.
        observed: Side effects of backward passes, in words.
        narrowed: Positions of the slots whose gradient came through one of `originals`, in its dtype.
    """

    outputs: Tensors
    tensors: Tensors
    whole: Any
    projections: dict[int, Project] = field(default_factory=dict)
    originals: dict[int, Tensor] = field(default_factory=dict)
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    observed: set[str] = field(default_factory=set)
    narrowed: set[int] = field(default_factory=set)

    @property
    def values(self) -> Tensors:
        return tuple(output.detach() for output in self.outputs)

    @property
    def finite(self) -> bool:
        """True if all outputs are finite."""
        return all(bool(torch.isfinite(_entries(value)).all()) for value in self.values)

    def connected(self) -> tuple[bool, ...]:
        """Mask of the outputs with an autograd graph."""
        return tuple(output.requires_grad for output in self.outputs)

    def pullback(self, cotangents: Sequence[Tensor | None], create_graph: bool = False) -> Tensors:
        """Gradients of `Σ ⟨cotangent, output⟩` in every slot; zero for a missing graph.

        The backward pass gets copies of the cotangents. If it writes into them, or into an input, this is
        noted in `observed`.

        Raises:
            LayerError: The backward pass raised.
        """
        pairs = [
            (output, cotangent)
            for output, cotangent in zip(self.outputs, cotangents, strict=True)
            if cotangent is not None and output.requires_grad
        ]
        found: Sequence[Tensor | None] = [None] * len(self.tensors)
        if pairs:
            # A cotangent that is itself differentiated must stay the tensor it is.
            handed = [c if c.requires_grad else _copy(c) for _, c in pairs]
            versions = [tensor._version for tensor in self.tensors]
            with foreign_errors("the backward pass"), self.around():
                found = self._gradients([output for output, _ in pairs], handed, create_graph)
            for (_, cotangent), copy in zip(pairs, handed, strict=True):
                if copy is not cotangent and not _same(copy, cotangent):
                    self.observed.add("its cotangent")
            if versions != [tensor._version for tensor in self.tensors]:
                self.observed.add("an input or parameter")
        return tuple(
            self._in_slot(position, torch.zeros_like(tensor) if gradient is None else gradient)
            for position, (tensor, gradient) in enumerate(zip(self.tensors, found, strict=True))
        )

    def accumulated(self, cotangents: Sequence[Tensor]) -> Tensors:
        """The gradients that `.backward()` accumulates, which reentrant checkpoints and hooks need.

        Raises:
            LayerError: The backward pass raised.
        """
        pairs = [
            pair for pair in zip(self.outputs, cotangents, strict=True) if pair[0].requires_grad
        ]
        with foreign_errors("the backward pass"), self.around():
            found = _accumulated([o for o, _ in pairs], self.tensors, [_copy(c) for _, c in pairs])
        return tuple(
            self._in_slot(position, torch.zeros_like(tensor) if gradient is None else gradient)
            for position, (tensor, gradient) in enumerate(zip(self.tensors, found, strict=True))
        )

    def _gradients(
        self, outputs: list[Tensor], cotangents: list[Tensor], create_graph: bool
    ) -> list[Tensor | None]:
        others = list(self.originals)
        wanted = (*self.tensors, *(self.originals[position] for position in others))
        try:
            found: list[Tensor | None] = list(
                torch.autograd.grad(
                    outputs, wanted, cotangents, retain_graph=True,
                    create_graph=create_graph, allow_unused=True,
                )
            )  # fmt: skip
        except RuntimeError as error:
            if "use_reentrant=True" not in str(error) or create_graph:
                raise
            found = _accumulated(outputs, wanted, cotangents)
        gradients = found[: len(self.tensors)]
        for position, extra in zip(others, found[len(self.tensors) :], strict=True):
            own = gradients[position]
            if extra is not None:
                self.narrowed.add(position)
                wide = extra.to(self.tensors[position].dtype)
                gradients[position] = wide if own is None else own + wide
        return gradients

    def _in_slot(self, position: int, gradient: Tensor) -> Tensor:
        project = self.projections.get(position)
        return gradient if project is None else project(gradient)


def _accumulated(
    outputs: Sequence[Tensor], tensors: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients that a call of `.backward()` adds to leaves, which are left as they were."""
    before = [tensor.grad for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    try:
        torch.autograd.backward(outputs, cotangents, retain_graph=True)
        return [tensor.grad for tensor in tensors]
    finally:
        for tensor, gradient in zip(tensors, before, strict=True):
            tensor.grad = gradient


def _entries(value: Tensor) -> Tensor:
    return value if value.layout == torch.strided else value.to_dense()


def _copy(cotangent: Tensor) -> Tensor:
    """A copy of a cotangent that has its strides, expanded ones included."""
    if cotangent.layout != torch.strided:
        return cotangent.detach().clone()
    shared = [i for i, stride in enumerate(cotangent.stride()) if stride == 0]
    if not shared:
        copy = torch.empty_strided(
            cotangent.shape, cotangent.stride(), dtype=cotangent.dtype, device=cotangent.device
        )
        return copy.copy_(cotangent.detach())
    one = cotangent.detach()
    for axis in shared:
        one = one.narrow(axis, 0, min(1, one.shape[axis]))
    return one.clone().expand(cotangent.shape)


def _same(a: Tensor, b: Tensor) -> bool:
    """True if no entry differs; undefined ones are alike."""
    a, b = _entries(a.detach()), _entries(b.detach())
    return bool(((a == b) | ((a != a) & (b != b))).all())
