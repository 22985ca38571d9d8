"""Forward mode of a layer: tangents of its outputs, and of its gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from .errors import LayerError, NoForwardModeError
from .subject import Subject
from .tape import Tape, Tensors


def pushforward(subject: Subject, tangents: Sequence[Tensor]) -> Tensors:
    """Tangents of the outputs in forward mode.

    Raises:
        NoForwardModeError: The layer has none.
    """
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
    with forward_ad.dual_level():
        duals, outputs = _dual_call(subject, tangents)
        inputs = [
            d for d, slot in zip(duals, subject.slots, strict=True) if slot.position is not None
        ]
        tape = Tape(outputs, tuple(inputs), outputs)
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


def _dual_call(subject: Subject, tangents: Sequence[Tensor]) -> tuple[list[Tensor], Tensors]:
    """The slots as dual numbers, by place, and the outputs; for use inside of a dual level.

    A captured tensor gets its tangent in place, so that the layer meets it however it reaches the tensor. It
    loses the tangent with the level, and keeps its value and version.
    """
    if isinstance(subject.layer, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise NoForwardModeError(
            "TorchScript drops tangents in graphs that it differentiates itself"
        )
    if any(slot.rebuild is not None for slot in subject.slots):
        raise NoForwardModeError("sparse inputs carry no tangents")
    duals = [
        forward_ad.make_dual(slot.value.clone().requires_grad_(), tangent)
        if slot.leaf is None
        else _with_tangent(slot.leaf, tangent)
        for slot, tangent in zip(subject.slots, tangents, strict=True)
    ]
    inputs: dict[int | None, Tensor] = {
        slot.position: dual
        for slot, dual in zip(subject.slots, duals, strict=True)
        if slot.position is not None
    }
    try:
        return duals, subject.called_with(inputs)
    except (NotImplementedError, RuntimeError, LayerError) as error:
        raise NoForwardModeError(str(error).splitlines()[0]) from error


def _with_tangent(leaf: Tensor, tangent: Tensor) -> Tensor:
    """The leaf itself, with a tangent in the current level if that is not zero."""
    if bool(tangent.any()):
        with torch.no_grad(), _unsafe_preserve_version_counter(leaf):
            leaf.copy_(forward_ad.make_dual(leaf.detach().clone(), tangent))
    return leaf
