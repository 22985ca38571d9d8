"""Checks: cotangents in other memory, of zeros, of several outputs at once; gradients of some inputs alone.

A loss may hand a backward pass a cotangent that is expanded, transposed, a view, or undefined for some
outputs. An optimiser may freeze inputs, and calls `.backward()` in place of `torch.autograd.grad`. All of
these have the same gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..evidence import Evidence
from ..reachable import node_names
from ..real import real
from ..session import NotExercisedError, Session
from ..subject import LayerError
from .comparing import compared, vanishing
from .measuring import doubt_of

_MOST = 4
"""Inputs that are asked for their gradients alone."""


def layout_of_cotangent(session: Session) -> list[Evidence]:
    """Cotangents that are transposed in memory, views, or expanded, have the same gradients."""
    found = []
    for o, output in enumerate(session.tape.values):
        w = session.probes[0][o]
        for change in (_transposed, _every_second):
            presented = change(w)
            if presented.stride() != w.stride() and w.numel() > 1:
                found += _presented(session, o, w, presented)
        if output.ndim > 0 and output.numel() > 1:
            one = w.reshape(-1)[:1].reshape([1] * w.ndim)
            found += _presented(session, o, one.expand_as(w).clone(), one.expand_as(w))
    if not found:
        raise NotExercisedError("all outputs are scalars")
    return found


def _transposed(w: Tensor) -> Tensor:
    return w if w.ndim < 2 else w.transpose(0, -1).contiguous().transpose(0, -1)


def _every_second(w: Tensor) -> Tensor:
    wide = torch.full((*w.shape[:-1], 2 * w.shape[-1]), torch.nan, dtype=w.dtype) if w.ndim else w
    if w.ndim:
        wide = wide.to(w.device)
        wide[..., ::2] = w
        return wide[..., ::2]
    return w


def _presented(session: Session, o: int, plain: Tensor, other: Tensor) -> list[Evidence]:
    expected = session.tape.pullback(session.only(o, plain))
    says = session.tape.pullback(session.only(o, other))
    return compared(session, o, "layout of the cotangent", expected, says)


def zero_cotangent(session: Session) -> list[Evidence]:
    """A cotangent of zeros has gradients of zero."""
    found = []
    for o in range(len(session.outputs)):
        zeros = torch.zeros_like(session.probes[0][o])
        gradients = session.tape.pullback(session.only(o, zeros))
        found += vanishing(session, o, "a cotangent of zeros", gradients)
    return found


def outputs_at_once(session: Session) -> list[Evidence]:
    """The gradients of all outputs at once are the sums of those of each.

    Raises:
        NotExercisedError: There is one output.
    """
    count = len(session.outputs)
    if count < 2:
        raise NotExercisedError("there is one output")
    gradients = session.tape.pullback([session.probes[0][o] for o in range(count)])
    expected = [
        sum((session.gradients[0][o][s] for o in range(1, count)), session.gradients[0][0][s])
        for s in range(len(session.slots))
    ]
    # The sums have the rounding of each, which that of the first output stands for.
    largest = max(range(count), key=lambda o: sum(float(g.norm()) for g in session.gradients[0][o]))
    return compared(session, largest, "all outputs at once", expected, gradients)


def by_backward(session: Session) -> list[Evidence]:
    """The gradients that `.backward()` accumulates are those of `torch.autograd.grad`."""
    found = []
    for o in range(len(session.outputs)):
        cotangents = [w if i == o else torch.zeros_like(w) for i, w in enumerate(session.probes[0])]
        gradients = session.subject.tape().accumulated(cotangents)
        found += compared(session, o, "by .backward()", session.gradients[0][o], gradients)
    return found


def some_inputs(session: Session) -> list[Evidence]:
    """The gradient of an input is the same if no other tensor requires one.

    Raises:
        NotExercisedError: There is one tensor to differentiate.
    """
    if len(session.slots) < 2:
        raise NotExercisedError("there is one tensor to differentiate")
    found = []
    reentrant = any("CheckpointFunction" in name for name in node_names(session.tape.outputs))
    for s, slot in enumerate(session.slots[:_MOST]):
        if slot.position is None and reentrant:
            continue  # A reentrant checkpoint has no gradients unless an input requires one.
        with session.subject.in_one(s) as tape:
            pulled = [
                tape.pullback(session.only(o, session.probes[0][o]))[0]
                for o in range(len(session.outputs))
            ]
        for o, output in enumerate(session.outputs):
            gradient = pulled[o]
            expected = session.gradients[0][o][s]
            scale = float(expected.norm())
            error = float((real(gradient) - expected).norm())
            floor = 2 * session.relative_floor(o, s) * scale + session.underflow(o, s)
            floor += 2 * session.rounding_of(0, o, s)
            found.append(
                Evidence(
                    "one input alone", output, slot.name,
                    error=error, scale=scale, floor=floor, slack=session.known_slack(o, s),
                    lag=session.lag, reference=False,
                    doubt=doubt_of(session, s) * scale if error > floor else 0.0,
                    worst=session.component(s, gradient, expected),
                )
            )  # fmt: skip
    if not found:
        raise NotExercisedError("a reentrant checkpoint needs an input that requires gradients")
    return found


def vmapped_backward(session: Session) -> list[Evidence]:
    """Several cotangents mapped by `vmap` over one backward pass have the gradients that each has alone.

    Raises:
        NotExercisedError: The backward pass has no batching rule.
    """
    last = session.cotangents - 1
    found = _by_functions(session, last)
    for o, output in enumerate(session.tape.outputs):
        if not output.requires_grad:
            continue
        stacked = torch.stack((session.probes[0][o], session.probes[last][o]))
        try:
            mapped = torch.autograd.grad(
                output, session.tape.tensors, stacked, retain_graph=True, is_grads_batched=True,
                allow_unused=True, materialize_grads=True,
            )  # fmt: skip
        except Exception as error:
            if found:
                return found
            raise NotExercisedError(
                f"the backward pass cannot be mapped by vmap: {str(error).splitlines()[0]}"
            ) from error
        for which, k in enumerate((0, last)):
            says = [_of_stack(session, s, g, which) for s, g in enumerate(mapped)]
            found += compared(
                session, o, "vmap over the backward pass", session.gradients[k][o], says
            )
    if not found:
        raise NotExercisedError("no output has a gradient graph")
    return found


def _of_stack(session: Session, s: int, gradients: Tensor, which: int) -> Tensor:
    """One of the stacked gradients in a slot; without a gradient there is no stack, but a zero."""
    tensor = session.tape.tensors[s]
    one = gradients[which] if gradients.ndim > tensor.ndim else gradients
    return session.tape.projections[s](one) if s in session.tape.projections else one


def _by_functions(session: Session, last: int) -> list[Evidence]:
    """The same by `torch.func`, in the inputs; nothing for a layer that it does not take."""
    own = [s for s, slot in enumerate(session.slots) if slot.position is not None]
    found: list[Evidence] = []
    if not own or any(session.slots[s].rebuild for s in own):
        return found
    for o in range(len(session.outputs)):
        stacked = torch.stack((session.probes[0][o], session.probes[last][o]))
        try:
            mapped = session.subject.pulled_by_functions(o, stacked)
        except LayerError:
            return found
        for which, k in enumerate((0, last)):
            says = [torch.zeros_like(g) for g in session.gradients[k][o]]
            for position, s in enumerate(own):
                says[s] = real(mapped[position][which])
            pieces = compared(
                session, o, "vmap over the backward pass", session.gradients[k][o], says
            )
            found += [pieces[s] for s in own if s < len(pieces)]
    return found
