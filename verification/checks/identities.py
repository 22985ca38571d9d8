"""Checks without differences: relations that the derivatives of any function satisfy exactly."""

from __future__ import annotations

import torch

from ..evidence import Evidence
from ..session import NotExercisedError, Session
from ..subject import NoForwardModeError
from ..subject.forward_mode import pushforward
from .finite_differences import PROJECTED, doubt_of_another_call

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
    gradients = session.tape.pullback(session.only(o, mixed))
    found = []
    for s, slot in enumerate(session.slots):
        g, h = (session.gradients[k][o][s].double() for k in (0, last))
        expected, says = g + 3 * h, gradients[s].detach().double() / factor
        scale = float(g.norm() + 3 * h.norm())
        found.append(
            Evidence(
                "linearity in the cotangent", session.outputs[o], slot.name,
                error=float((says - expected).norm()),
                scale=scale,
                floor=session.relative_floor(o, s) * scale
                + session.underflow(o, s) * max(1.0, 1 / factor),
                slack=session.known_slack(o, s),
                lag=session.lag,
                reference=False,
                worst=session.component(s, says, expected),
            )
        )  # fmt: skip
    return found


def forward_mode(session: Session) -> list[Evidence]:
    """Forward mode agrees with reverse mode: `⟨w, J v⟩ = ⟨Jᵀ w, v⟩`.

    Raises:
        NotExercisedError: The layer has no forward mode.
    """
    found, reason = [], "no input requires gradients"
    doubt = doubt_of_another_call(session)
    for s, slot in enumerate(session.slots):
        if slot.position is None:
            continue
        direction = session.direction(s, 0)
        try:
            outputs = pushforward(session.subject, session.alone(s, direction))
        except NoForwardModeError as error:
            reason = str(error)
            continue
        for o, output in enumerate(session.outputs):
            for k in range(session.cotangents):
                gradient = session.gradients[k][o][s].double()
                reverse = float((gradient * direction.double()).sum())
                forward = float((session.probes[k][o].double() * outputs[o].double()).sum())
                scale = max(float(gradient.norm()), abs(forward))
                found.append(
                    Evidence(
                        "forward against reverse mode", output, slot.name,
                        error=abs(forward - reverse),
                        scale=scale,
                        # Both modes may have solved a linear equation to its tolerance.
                        floor=2 * session.relative_floor(o, s) * scale + session.underflow(o, s),
                        slack=PROJECTED * session.known_slack(o, s),
                        lag=session.lag,
                        # Forward mode is another call, which may end at another iterate.
                        doubt=doubt * scale,
                        reference=False,
                    )
                )  # fmt: skip
    if not found:
        raise NotExercisedError(f"the layer has no forward mode: {reason}")
    return found
