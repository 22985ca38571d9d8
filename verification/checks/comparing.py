"""Comparison of two gradients that must be the same: evidence for every slot."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..evidence import Evidence
from ..real import distance_of, real, size_of
from ..session import Session
from ..subject import Tape

_LAG = 1e3
ROUNDINGS = 64.0
"""Values of two calls that differ by less than this multiple of rounding are the same."""


def all_outputs(session: Session, name: str, tape: Tape) -> list[Evidence]:
    """Evidence on another call at the same inputs."""
    distance = distance_of(session.tape.values, tape.values)
    found = []
    for o, _ in enumerate(session.outputs):
        gradients = tape.pullback(session.only(o, session.probes[0][o]))
        found += compared(session, o, name, session.gradients[0][o], gradients, distance)
    return found


def same_values(session: Session) -> float:
    """The relative distance up to which values of two calls are the same but for rounding."""
    measured = 0.0 if session.solver_is_known else max(session.measured_rounding.values)
    return ROUNDINGS * max(session.eps, measured)


def compared(
    session: Session,
    o: int,
    name: str,
    expected: Sequence[Tensor],
    says: Sequence[Tensor],
    distance: float = 0.0,
) -> list[Evidence]:
    """Evidence for every slot.

    Another call may have ended at another iterate. `distance` is the relative distance of the values, and a
    gradient converges later than its value.
    """
    found: list[Evidence] = []
    if distance > same_values(session) and session.random:
        return found  # Another order of the same random numbers is another function.
    for s, slot in enumerate(session.slots):
        right, other = real(expected[s]), real(says[s])
        scale = float(right.norm())
        doubt = 0.0
        if not session.solver_is_known and distance > same_values(session):
            doubt = _LAG * distance * scale
        found.append(
            Evidence(
                name, session.outputs[o], slot.name,
                error=float((right - other).norm()),
                scale=scale,
                floor=2 * session.relative_floor(o, s) * scale
                + session.underflow(o, s)
                + 2 * session.rounding_of(0, o, s),
                slack=session.known_slack(o, s),
                lag=session.lag,
                doubt=doubt,
                reference=False,
                worst=session.component(s, other, right),
            )
        )  # fmt: skip
    return found


def vanishing(session: Session, o: int, name: str, gradients: Sequence[Tensor]) -> list[Evidence]:
    """Evidence for every slot that the gradients of an output, which must be zero, are zero."""
    found = []
    for s, slot in enumerate(session.slots):
        left = size_of(gradients[s])
        found.append(
            Evidence(
                name, session.outputs[o], slot.name,
                error=left if left == left else torch.inf,
                scale=float(session.gradients[0][o][s].norm()),
                floor=session.underflow(o, s),
                reference=False,
            )
        )  # fmt: skip
    return found
