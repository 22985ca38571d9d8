"""Tape: one call of a layer with its autograd graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import foreign_errors

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Tape:
    """One call of the layer, and its derivatives by autograd.

    Attributes:
        outputs: The floating-point outputs, attached.
        tensors: The tensor in each slot.
        whole: The output as the layer returned it.
    """

    outputs: Tensors
    tensors: Tensors
    whole: Any

    @property
    def values(self) -> Tensors:
        return tuple(output.detach() for output in self.outputs)

    @property
    def finite(self) -> bool:
        """True if all outputs are finite."""
        return all(bool(torch.isfinite(value).all()) for value in self.values)

    def connected(self) -> tuple[bool, ...]:
        """Mask of the outputs with an autograd graph."""
        return tuple(output.requires_grad for output in self.outputs)

    def pullback(self, cotangents: Sequence[Tensor | None], create_graph: bool = False) -> Tensors:
        """Gradients of `Σ ⟨cotangent, output⟩` in every slot; zero for a missing graph.

        Raises:
            LayerError: The backward pass raised.
        """
        pairs = [
            (output, cotangent)
            for output, cotangent in zip(self.outputs, cotangents, strict=True)
            if cotangent is not None and output.requires_grad
        ]
        if not pairs:
            return tuple(torch.zeros_like(tensor) for tensor in self.tensors)
        with foreign_errors("the backward pass"):
            found = torch.autograd.grad(
                [output for output, _ in pairs],
                self.tensors,
                [cotangent for _, cotangent in pairs],
                retain_graph=True,
                create_graph=create_graph,
                allow_unused=True,
            )
        return tuple(
            torch.zeros_like(tensor) if gradient is None else gradient
            for tensor, gradient in zip(self.tensors, found, strict=True)
        )
