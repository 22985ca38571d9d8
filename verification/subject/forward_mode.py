"""Forward mode of a layer: tangents of its outputs, and of its gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from .errors import LayerError, NoForwardModeError
from .subject import Subject
from .tape import Tape, Tensors


def pushforward(subject: Subject, tangents: Sequence[Tensor]) -> Tensors:
    """Tangents of the outputs in forward mode.

    Raises:
        NoForwardModeError: The layer has none, or a captured tensor has a tangent.
    """
    _check_tangents(subject, tangents)
    with forward_ad.dual_level():
        _, outputs = _dual_call(subject, tangents)
        found = [forward_ad.unpack_dual(output) for output in outputs]
        return tuple(
            torch.zeros_like(dual.primal) if dual.tangent is None else dual.tangent.detach()
            for dual in found
        )


def pushforward_of_gradients(
    subject: Subject, tangents: Sequence[Tensor], cotangents: Sequence[Tensor | None]
) -> Tensors:
    """Tangents of the gradients in the inputs' slots: forward over reverse mode.

    A gradient without a tangent counts as constant. Other slots get zeros.

    Raises:
        NoForwardModeError: The layer, or its backward pass, has no forward mode.
    """
    _check_tangents(subject, tangents)
    with forward_ad.dual_level():
        duals, outputs = _dual_call(subject, tangents)
        tape = Tape(outputs, tuple(duals.values()), outputs)
        try:
            gradients = tape.pullback(cotangents, create_graph=True)
        except LayerError as error:
            raise NoForwardModeError(str(error)) from error
        found = iter([forward_ad.unpack_dual(gradient).tangent for gradient in gradients])
        return tuple(
            torch.zeros_like(slot.value)
            if slot.position is None or (tangent := next(found)) is None
            else tangent.detach()
            for slot in subject.slots
        )


def _check_tangents(subject: Subject, tangents: Sequence[Tensor]) -> None:
    if any(
        slot.leaf is not None and bool(tangent.any())
        for slot, tangent in zip(subject.slots, tangents, strict=True)
    ):
        raise NoForwardModeError("captured tensors cannot carry tangents")


def _dual_call(
    subject: Subject, tangents: Sequence[Tensor]
) -> tuple[dict[int | None, Tensor], Tensors]:
    """The inputs as dual numbers, by position, and the outputs; for use inside of a dual level."""
    duals: dict[int | None, Tensor] = {
        slot.position: forward_ad.make_dual(slot.value.clone().requires_grad_(), tangent)
        for slot, tangent in zip(subject.slots, tangents, strict=True)
        if slot.position is not None
    }
    try:
        return duals, subject.called_with(duals)
    except (NotImplementedError, RuntimeError, LayerError) as error:
        raise NoForwardModeError(str(error).splitlines()[0]) from error
