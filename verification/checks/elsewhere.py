"""Checks: the layer at other inputs, in another dtype, on another device, in evaluation mode.

A bug may show only where a nonlinearity saturates, in single precision, or once a cached factor is
stale. The core checks run again there. Verdicts of wrong and correct count. Undecided ones do not: the layer
may diverge there, which says nothing about it here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..equations import residual_of
from ..evidence import Evidence
from ..probes import moved_at_random
from ..real import real, widened
from ..session import NotExercisedError, Session
from ..subject import LayerError
from ..verdict import Verdict
from .core import CORE

_AWAY, _SATURATED = 0.5, 30.0


def another_point(session: Session) -> list[Evidence]:
    """The same layer object at inputs that have moved by their own size."""
    return _explored(
        session, "another point", lambda value: moved_at_random(value, _AWAY, session.generator(6))
    )


def saturated(session: Session) -> list[Evidence]:
    """Inputs thirty times as large: those with the batch axis, if there are any.

    The others may be parameters, which define the layer.

    Raises:
        NotExercisedError: The layer has no usable values there.
    """
    leading = {value.shape[:1] for value in session.tape.values if value.ndim > 1}
    rows = [slot.value for slot in session.slots if slot.value.ndim > 1]
    shared = any(value.shape[:1] in leading for value in rows)

    def grown(value: Tensor) -> Tensor:
        own = value.ndim > 1 and value.shape[:1] in leading
        return _SATURATED * value if own or not shared else value

    return _explored(session, "saturated inputs", grown)


def single_precision(session: Session) -> list[Evidence]:
    """Inputs and parameters in float32.

    Raises:
        NotExercisedError: They already are, or captured tensors keep their dtype.
    """
    if all(slot.value.dtype != torch.float64 for slot in session.slots):
        raise NotExercisedError("the layer is not examined in float64")
    return _explored(
        session, "single precision", lambda value: value.float(), _converted(session, torch.float32)
    )


def other_device(session: Session) -> list[Evidence]:
    """Inputs and parameters on an accelerator.

    Raises:
        NotExercisedError: There is no accelerator, or the layer captures tensors that keep their device.
    """
    if not torch.cuda.is_available() or any(slot.value.is_cuda for slot in session.slots):
        raise NotExercisedError("there is no other device")
    return _explored(
        session,
        "another device",
        lambda value: value.cuda(),
        _converted(session, torch.device("cuda")),
    )


def opposite_signs(session: Session) -> list[Evidence]:
    """Inputs of the opposite signs."""
    return _explored(session, "opposite signs", torch.neg)


def other_mode(session: Session) -> list[Evidence]:
    """A module in evaluation mode if it is given in training mode, and the other way round.

    Raises:
        NotExercisedError: The layer is not a module, or has no mode of its own.
    """
    layer = session.subject.layer
    if not isinstance(layer, nn.Module):
        raise NotExercisedError("the layer is no module")
    own = [module for module in layer.modules() if _has_two_modes(module)]
    if not own:
        raise NotExercisedError("no part of the module has a mode of its own")
    training = not any(module.training for module in own)
    with _in_mode(layer, training):
        name = "training mode" if training else "evaluation mode"
        return _explored(session, name, lambda value: value)


def _has_two_modes(module: nn.Module) -> bool:
    """True if a module may depend on its mode: a module from outside of torch, or a known one of torch."""
    known = type(module).__module__.startswith("torch.nn")
    return not known or type(module).__name__.startswith(("Dropout", "BatchNorm", "RReLU"))


@contextmanager
def _in_mode(layer: nn.Module, training: bool) -> Iterator[None]:
    before = {module: module.training for module in layer.modules()}
    layer.train(training)
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _converted(session: Session, to: torch.dtype | torch.device) -> Callable[..., Any] | None:
    """The layer with its parameters converted, or `None` for the layer itself."""
    layer = session.subject.layer
    captured = [slot for slot in session.slots if slot.leaf is not None]
    if not captured:
        return None
    own = {id(p) for p in layer.parameters()} if isinstance(layer, nn.Module) else set()
    if not isinstance(layer, nn.Module) or any(id(slot.leaf) not in own for slot in captured):
        raise NotExercisedError("captured tensors stay as they are")
    if session.residual is not None and residual_of(layer) is None:
        raise NotExercisedError("residual= may use the parameters as they are")
    try:
        return copy.deepcopy(layer).to(to)
    except (RuntimeError, TypeError) as error:
        raise NotExercisedError(f"the module cannot be copied: {error}") from error


def _finite_or_narrow(there: Session) -> None:
    """Leave out a point at which gradients overflow in the dtype of the layer, and not in float64.

    Raises:
        NotExercisedError: They do.
    """
    finite = all(bool(torch.isfinite(g).all()) for row in there.gradients for gs in row for g in gs)
    if finite or there.copy is None:
        return
    _, tape = there.copy
    wide = [tape.pullback(there.only(o, widened(w))) for o, w in enumerate(there.probes[0])]
    if all(bool(torch.isfinite(real(g)).all()) for gradients in wide for g in gradients):
        raise NotExercisedError("gradients there overflow in this dtype, and not in float64")


def _explored(
    session: Session,
    name: str,
    change: Callable[[Tensor], Tensor],
    layer: Callable[..., Any] | None = None,
) -> list[Evidence]:
    """Decided evidence of the core checks on the layer under a change of its inputs."""
    residual = session.residual if layer is None else residual_of(layer) or session.residual
    subject = session.subject.at(change, layer, residual)
    try:
        tape = subject.discover()
    except LayerError as error:
        raise NotExercisedError(f"the layer has no values there: {error}") from error
    if not tape.finite:
        raise NotExercisedError("the layer's values there are not finite")
    there = Session(
        subject, tape, residual, None if layer is not None else session.tighten,
        cotangents=1, directions=1, full=False, seed=session.seed,
    )  # fmt: skip
    _finite_or_narrow(there)
    found, reasons = [], []
    for check, run in CORE.items():
        try:
            found += [replace(piece, check=f"{name}, {check}") for piece in run(there)]
        except (NotExercisedError, LayerError) as error:
            reasons.append(str(error))
    known = {(output, slot.name) for output in session.outputs for slot in session.slots}
    decided = [
        replace(piece, reference=False)
        for piece in found
        if piece.verdict in (Verdict.CORRECT, Verdict.WRONG)
        and (piece.output, piece.input) in known
    ]
    if not decided:
        raise NotExercisedError(f"nothing can be told there: {'; '.join(dict.fromkeys(reasons))}")
    return decided
