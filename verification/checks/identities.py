"""Checks without differences: relations that the derivatives of any function satisfy exactly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..evidence import Evidence
from ..examined import ROUNDINGS
from ..real import real, widened
from ..rounding import rounded
from ..session import NotExercisedError, Session
from ..subject import NoForwardModeError
from ..subject.forward_mode import pushforward
from .finite_differences import PROJECTED, VANISHES
from .measuring import doubt_of

LARGE, SMALL = "a cotangent made large", "a cotangent made small"
_AT_SCALE = 4.0
_STEPS = 10.0
_FACTOR = 2.0**20
"""A power of two, so that scaling by it is exact."""


def linearity(session: Session) -> list[Evidence]:
    """The gradient is linear in the cotangent: `g(t (w + 3 w′)) = t (g(w) + 3 g(w′))`, `t` tiny and huge.

    An adjoint solve with an absolute tolerance, a fixed regularisation, a cut-off or a clip violates it.
    """
    return [
        piece
        for o in range(len(session.outputs))
        for factor in (1 / _FACTOR, _FACTOR)
        if factor**2 < torch.finfo(session.tape.outputs[o].dtype).max
        for piece in _scaled(session, o, factor)
    ]


def _scaled(session: Session, o: int, factor: float) -> list[Evidence]:
    last = min(1, session.cotangents - 1)
    mixed = factor * (session.probes[0][o] + 3 * session.probes[last][o])
    gradients = [real(g) for g in session.tape.pullback(session.only(o, mixed))]
    found = _compared(session, o, factor, last, gradients, [0.0] * len(gradients))
    if session.solver_is_known or all(piece.error <= piece.limit for piece in found):
        return found
    # The rounding at this scale may be another: that of a sum of large and small terms, for example.
    generator = session.generator(10)
    values = [rounded(slot.value, session.eps, generator) for slot in session.slots]
    there = session.subject.tape_at(values)
    moved = rounded(mixed, session.eps, generator)
    again = [real(g) for g in there.pullback(session.only(o, moved))]
    noise = [
        _AT_SCALE * ROUNDINGS * float((a - b).norm()) / factor
        for a, b in zip(gradients, again, strict=True)
    ]
    if session.gradients_of_copy is not None and session.copy is not None:
        # A float64 copy that is linear leaves rounding as the only cause.
        _, tape = session.copy
        wide = [real(g) for g in tape.pullback(session.only(o, widened(mixed)))]
        for s, g in enumerate(wide):
            first, other = (session.gradients_of_copy[k][o][s] for k in (0, last))
            if first is None or other is None:
                continue
            expected = first + 3 * other
            if float((g / factor - expected).norm()) <= 1e-6 * float(expected.norm()):
                noise[s] = max(noise[s], 2 * float((gradients[s] / factor - expected).norm()))
    return _compared(session, o, factor, last, gradients, noise)


def _compared(
    session: Session, o: int, factor: float, last: int, gradients: list[Tensor], noise: list[float]
) -> list[Evidence]:
    found = []
    for s, slot in enumerate(session.slots):
        g, h = (session.gradients[k][o][s] for k in (0, last))
        expected, says = g + 3 * h, gradients[s] / factor
        scale = float(g.norm() + 3 * h.norm())
        # Algorithms may choose their steps by the size of the cotangent, as that of the matrix exponential
        # does.
        share = session.relative_floor(o, s) * (1.0 if session.solver_is_known else _STEPS)
        found.append(
            Evidence(
                "linearity in the cotangent", session.outputs[o], slot.name,
                error=float((says - expected).norm()),
                scale=scale,
                floor=share * scale
                + session.underflow(o, s) * max(1.0, 1 / factor)
                + session.rounding_of(0, o, s)
                + 3 * session.rounding_of(last, o, s)
                + noise[s],
                slack=session.known_slack(o, s),
                lag=session.lag,
                reference=False,
                worst=session.component(s, says, expected),
                detail=LARGE if factor > 1 else SMALL,
            )
        )  # fmt: skip
    return found


def forward_mode(session: Session) -> list[Evidence]:
    """Forward mode agrees with reverse mode: `⟨w, J v⟩ = ⟨Jᵀ w, v⟩`.

    All slots move together first; each alone only if the modes disagree.

    Raises:
        NotExercisedError: The layer has no forward mode.
    """
    everything = tuple(range(len(session.slots)))
    reason, usable = "nothing requires gradients", everything
    try:
        found = _both_modes(session, everything)
        if all(piece.error <= piece.limit for piece in found):
            return found
    except NoForwardModeError as error:
        reason = str(error)
        # Perhaps only some of the slots have none.
        usable = tuple(s for s in everything if session.slots[s].position is not None)
    found = []
    for s in usable:
        try:
            found += _both_modes(session, (s,))
        except NoForwardModeError as error:
            reason = str(error)
    if not found:
        raise NotExercisedError(f"the layer has no forward mode: {reason}")
    return found


def _both_modes(session: Session, group: tuple[int, ...]) -> list[Evidence]:
    steps = {s: session.size(s) * widened(session.direction(s, 0)) for s in group}
    tangents = [
        steps[s].to(slot.value.dtype) if s in group else torch.zeros_like(slot.value)
        for s, slot in enumerate(session.slots)
    ]
    outputs = pushforward(session.subject, tangents)
    found = []
    for o, output in enumerate(session.outputs):
        for k in range(session.cotangents):
            gradients = session.gradients[k][o]
            reverse = sum(float((gradients[s] * real(tangents[s])).sum()) for s in group)
            forward = float((real(session.probes[k][o]) * real(outputs[o])).sum())
            sizes = {s: session.size(s) * session.weighted(s, gradients[s]) for s in group}
            total = max(math.hypot(*sizes.values()), abs(forward))
            noise = math.hypot(*(session.size(s) * session.gradient_noise(k, o, s) for s in group))
            # Both modes may have solved a linear equation to its tolerance.
            floor = 2 * max(session.relative_floor(o, s) for s in group) * total + 2 * noise
            floor += sum(session.size(s) * session.underflow(o, s) for s in group)
            # A product that vanishes in one mode is a rounding of the output in the other.
            natural = float((real(session.probes[k][o]) * real(session.tape.values[o])).norm())
            floor += VANISHES * session.eps * natural
            slack = math.hypot(*(session.size(s) * session.known_slack(o, s) for s in group))
            error = abs(forward - reverse)
            # Forward mode is another call, which may end at another iterate.
            doubts = max(doubt_of(session, s) for s in group) if not error <= floor else 0.0
            found += [
                Evidence(
                    "forward against reverse mode", output, session.slots[s].name,
                    error=error, scale=max(sizes[s], abs(forward) if len(group) == 1 else 0.0),
                    floor=floor, slack=PROJECTED * slack, lag=session.lag, doubt=doubts * total,
                    reference=False,
                )
                for s in group
            ]  # fmt: skip
    return found
