"""Calls under `torch.inference_mode()`: solved outside of it, without gradients.

Tensors made in inference mode do not count writes and cannot be saved for a derivative, and solvers take
derivatives with respect to the unknown. So the call leaves the mode and copies its arguments. A tensor
that the function closes over is replaced by a copy in every operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from ..equations.exchange import ExchangeMode
from ..equations.layout import Leaves


@contextmanager
def left() -> Iterator[None]:
    """Leave inference mode; if it was on, gradients are off instead."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        yield


def ordinary(tensors: Leaves) -> Leaves:
    """The tensors, with copies of the ones made in inference mode."""
    if not any(tensor.is_inference() for tensor in tensors):
        return tensors
    with left():
        return tuple(tensor.clone() if tensor.is_inference() else tensor for tensor in tensors)


class OrdinaryCopies(ExchangeMode):
    """Mode in which every torch function gets copies of the tensors made in inference mode."""

    def __init__(self) -> None:
        super().__init__()
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}

    def exchanged(self, tensor: Tensor) -> Tensor:
        if not tensor.is_inference():
            return tensor
        # The original is kept as well, so that no other tensor can get its id.
        return self._copies.setdefault(id(tensor), (tensor, tensor.clone()))[1]
