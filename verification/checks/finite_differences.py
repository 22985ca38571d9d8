"""Check: directional finite differences against the derivatives that the layer claims.

One joint direction over all slots comes first, so that a right layer costs the same whatever the number of
its parameters. If the layer and the differences disagree there, or if a slot would not show an error of 1
%, the slots are halved until it is known which of them it is.

The differences also examine the implicit reference itself, which comes from autograd through the equation
alone. Where a layer is differenced through its float64 copy, the gradients of that copy are examined as
well: they come
from the same code, and show errors that the rounding of a narrow dtype would hide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..evidence import RESOLUTION, Evidence
from ..real import real
from ..session import NotExercisedError, Session
from ..verdict import Verdict
from .measuring import (
    TRUST,
    Group,
    Measured,
    claimed,
    columns_of,
    lag_of_jumps,
    measured,
    polished_root,
    quick,
)

_QUICK = 1e-4
_ALIKE = 1e-4
NAME = "finite differences"
COPY = f"{NAME} of the float64 copy"
KINK = 1e-6
_KINK_HERE = "the layer has a kink here"
_AS_LARGE = 4.0
"""A kink explains errors, relative to the slope, of at most this multiple of those along it."""
PROJECTED = 3.0
"""The product of an error with a Gaussian direction is at most this multiple of the error's norm."""
VANISHES = 4.0
"""A derivative that changes the output by less than this multiple of rounding, over the size of the input,
is zero."""
_CERTAIN = 1e-6
"""A derivative is taken for zero if differences exclude more than this share of the output's own size."""


def finite_differences(session: Session) -> list[Evidence]:
    """One piece of evidence for each output, slot, cotangent and direction.

    Raises:
        NotExercisedError: The equation is known, and its root was not found.
    """
    if polished_root(session) is None and session.residual is not None:
        raise NotExercisedError(
            "differences of the layer are not those of the root, which was not found"
        )
    found: list[Evidence] = []
    for kind in range(session.directions):
        # Slots known to be wrong would spoil the joint direction.
        wrong = {e.input for e in found if e.verdict is Verdict.WRONG}
        left = tuple(s for s, slot in enumerate(session.slots) if slot.name not in wrong)
        pending: list[Group] = [left] if left else []
        while pending:
            group = pending.pop()
            evidence, undecided = _along(session, group, kind)
            found += evidence
            pending += undecided
    return _beside_kinks(found)


def _beside_kinks(found: list[Evidence]) -> list[Evidence]:
    """The evidence, where a kink along one direction explains a contradiction along another.

    At a point without a derivative no gradient has the slopes of all directions. Along some the two sides
    may agree by chance, as for probes of equal size, and the slope there is none of a gradient either.
    """
    kinks: dict[tuple[str, str], Evidence] = {}
    for e in found:
        before = kinks.get((e.output, e.input))
        if _KINK_HERE in e.unreliable and (before is None or _relative(before) < _relative(e)):
            kinks[e.output, e.input] = e
    return [
        replace(e, unreliable=kink.unreliable)
        if (kink := kinks.get((e.output, e.input))) is not None
        and e.verdict is Verdict.WRONG
        and _relative(e) <= _AS_LARGE * _relative(kink)
        else e
        for e in found
    ]


def _relative(e: Evidence) -> float:
    return e.error / e.scale if e.scale > 0 else 0.0


def reference_holds(session: Session) -> str:
    """Reason to distrust the implicit reference, by differences of the root; empty if there is none.

    Raises:
        NotExercisedError: There is no implicit reference.
    """
    everything = tuple(range(len(session.slots)))
    if not _distrusted(session, everything):
        return ""
    return next(filter(None, (_distrusted(session, (s,)) for s in everything)), "")


def _distrusted(session: Session, group: Group) -> str:
    try:
        found = measured(session, group, 0)
    except ArithmeticError:
        return "the differences cannot be measured" if len(group) > 1 else ""
    for column, (k, o) in enumerate(columns_of(session)):
        star = session.implicit(k, o)[1]
        says = sum(float((star[s] * real(step)).sum()) for s, step in found.steps.items())
        sees = float(found.slope.value[column])
        size = sum((_unit(session, found, s) * session.weighted(s, star[s])) ** 2 for s in group)
        scale = max(size**0.5, abs(sees))
        allowed = TRUST * found.slope.error[column] + 1e-7 * scale
        if abs(says - sees) > allowed and not found.slope.jump[column] > KINK * scale:
            unit = _unit(session, found, group[0])
            return (
                f"the derivative that autograd gives of the equation in {session.slots[group[0]].name} is "
                f"not its derivative: {says / unit:.6g} along a direction, finite differences of the root "
                f"give {sees / unit:.6g}"
            )
    return ""


def _unit(session: Session, found: Measured, s: int) -> float:
    """The length of a slot's step, for a direction of size one."""
    return found.shares[s] * session.size(s)


@dataclass(frozen=True)
class _Column:
    """One column of a measurement, in the units of its direction."""

    error: float
    sees: float
    floor: float
    slack: float
    doubt: float
    sizes: dict[int, float]
    zeros: frozenset[int]
    natural: float
    kink: float
    unconfirmed: bool


def _along(session: Session, group: Group, kind: int) -> tuple[list[Evidence], list[Group]]:
    """Evidence along one direction, and the groups that it leaves undecided."""
    try:
        found = measured(session, group, kind)
    except ArithmeticError as error:
        if len(group) > 1:
            return [], _halves(group)
        return [_undecided(session, o, group[0], str(error)) for _, o in columns_of(session)], []
    evidence: list[Evidence] = []
    poor: set[int] = set()
    for column, (k, o) in enumerate(columns_of(session)):
        own = _judged(session, found, column, k, o)
        copied = _copied(session, found, column, k, o, own)
        if copied is not None and copied.error <= copied.floor:
            pieces = list(_through_copy(session, found, k, o, own, copied))
            evidence += pieces
            names = {e.input for e in pieces if not e.floor <= RESOLUTION * e.scale}
            poor |= {s for s in group if session.slots[s].name in names}
            continue
        limit = own.floor + session.lag * own.slack
        if len(group) > 1:
            if not own.error <= limit or own.kink:
                return [], _suspects(session, found, column) or _halves(group)
            poor |= {s for s in group if not limit <= RESOLUTION * _scale(own, s, found)}
        evidence += [_evidence(session, own, found, o, s) for s in group]
        if copied is not None:
            evidence += _of_copy(session, found, column, o, own, copied)
    if poor and len(group) > 1 and _may_help(session, group):
        names = {session.slots[s].name for s in poor}
        return [e for e in evidence if e.input not in names], [(s,) for s in sorted(poor)]
    return evidence, []


def _may_help(session: Session, group: Group) -> bool:
    """True if slots may be seen better alone: not in a dtype whose rounding alone hides errors of 1 %."""
    outputs = range(len(session.outputs))
    return all(session.relative_floor(o, s) <= RESOLUTION for o in outputs for s in group)


def _suspects(session: Session, found: Measured, column: int) -> list[Group]:
    """Slots in which one quick difference contradicts the layer, each alone, and the others together."""
    k, o = columns_of(session)[column]
    spacing = min(_QUICK, float(found.slope.reach[column]))
    suspects: list[Group] = []
    others: list[int] = []
    for s, step in found.steps.items():
        try:
            sees = float(quick(session, {s: step}, spacing)[column])
        except ArithmeticError:
            return []
        says = float((session.gradients[k][o][s] * real(step)).sum())
        if abs(says - sees) <= _ALIKE * abs(sees):
            others.append(s)
        else:
            suspects.append((s,))
    if not suspects:
        return []
    return [*suspects, tuple(others)] if others else suspects


def _halves(group: Group) -> list[Group]:
    middle = len(group) // 2
    return [group[:middle], group[middle:]]


def _scale(own: _Column, s: int, found: Measured) -> float:
    if s in own.zeros:
        return own.natural * found.shares[s]
    size = own.sizes[s]
    return max(size, abs(own.sees)) if len(found.steps) == 1 else size


def _judged(session: Session, found: Measured, column: int, k: int, o: int) -> _Column:
    sees = float(found.slope.value[column])
    uncertain = TRUST * float(found.slope.error[column])
    natural = float(found.natural[column])
    units = {s: _unit(session, found, s) for s in found.steps}
    sizes = {s: u * session.weighted(s, session.gradients[k][o][s]) for s, u in units.items()}
    noises = {s: u * session.gradient_noise(k, o, s) for s, u in units.items()}
    total = max(float(np.hypot.reduce(list(sizes.values()))), abs(sees))
    relative = max(session.relative_floor(o, s) for s in found.steps)
    if session.residual is not None:
        relative += max(session.conditioned_floor(o, s) for s in found.steps)
    noise = float(np.hypot.reduce(list(noises.values())))
    rounding = VANISHES * session.eps * natural * max(found.shares.values())
    floor = relative * total + uncertain + noise
    if not session.solver_is_known:
        floor += rounding
    slack = 0.0
    if session.solver_is_known:
        parts = [
            session.relative_slack(o, s) * sizes_at_root(session, k, o, s) * u
            for s, u in units.items()
        ]
        slack = PROJECTED * float(np.hypot.reduce(parts))
    error = abs(claimed(session, found, k, o) - sees)
    doubt, unconfirmed = 0.0, False
    if len(units) == 1 and not error <= floor + session.lag * slack:
        doubt = TRUST * float(found.slope.doubt[column])
        unconfirmed = error <= floor + session.lag * slack + doubt
        # An iteration that stops elsewhere in each call still changes between its jumps; a step function
        # does not.
        if not found.slope.flat[column]:
            doubt += lag_of_jumps(session, found) * total
    constant = bool(found.slope.constant[column]) or uncertain <= _CERTAIN * natural
    zeros = frozenset(
        s
        for s, size in sizes.items()
        if error <= floor
        and (size <= max(2 * noises[s], rounding) if size > 0 else constant)
        and (len(units) > 1 or abs(sees) <= floor)
    )
    jump = float(found.slope.jump[column])
    kink = jump if jump > KINK * total else 0.0
    return _Column(error, sees, floor, slack, doubt, sizes, zeros, natural, kink, unconfirmed)


def sizes_at_root(session: Session, k: int, o: int, s: int) -> float:
    """The size of the gradient at the root, in the units of the slot's directions."""
    pair = session.gradients_at_the_root(k, o)
    return 0.0 if pair is None else session.weighted(s, pair[1][s])


def _evidence(session: Session, own: _Column, found: Measured, o: int, s: int) -> Evidence:
    scale = _scale(own, s, found)
    unreliable = ""
    if own.kink and scale > 0:
        unreliable = (
            f"the slopes on both sides differ by {own.kink / scale:.1e}: {_KINK_HERE}, "
            "and no derivative; verify it at another point"
        )
    detail = "the derivative is zero up to rounding" if s in own.zeros else ""
    if own.unconfirmed:
        detail = "narrower differences do not confirm it: kinks or rounding are too near"
    return Evidence(
        check=_name(session),
        output=session.outputs[o],
        input=session.slots[s].name,
        error=own.error,
        scale=scale,
        floor=own.floor,
        slack=own.slack,
        lag=session.lag,
        doubt=own.doubt,
        unreliable=unreliable,
        detail=detail,
    )


@dataclass(frozen=True)
class _Copy:
    """One column of the float64 copy's gradients, in the units of the direction."""

    error: float
    floor: float
    gradients: dict[int, Tensor]


def _copied(
    session: Session, found: Measured, column: int, k: int, o: int, own: _Column
) -> _Copy | None:
    gradients = session.gradients_of_copy
    if gradients is None or session.copy is None or own.kink:
        return None
    ours = {s: g for s in found.steps if (g := gradients[k][o][s]) is not None}
    if len(ours) < len(found.steps):
        return None
    says = sum(float((g * real(found.steps[s])).sum()) for s, g in ours.items())
    sees, uncertain = float(found.slope.value[column]), TRUST * float(found.slope.error[column])
    units = {s: _unit(session, found, s) for s in found.steps}
    sizes = [u * session.weighted(s, ours[s]) for s, u in units.items()]
    noise = [u * session.gradient_noise(k, o, s) for s, u in units.items()]
    # Gradients that come through leaves which the copy shares with the layer are rounded to their dtype.
    shared = any(s in session.copy[1].narrowed for s in found.steps)
    precision = torch.finfo(torch.float32).eps if shared else torch.finfo(torch.float64).eps
    relative = max(1e-9, 8 * precision) * max(session.tape.outputs[o].numel(), 1) ** 0.5
    total = max(float(np.hypot.reduce(sizes)), abs(sees))
    narrower = min(1.0, precision / session.eps)
    floor = relative * total + uncertain + narrower * float(np.hypot.reduce(noise))
    floor += VANISHES * precision * own.natural
    return _Copy(abs(says - sees), floor, ours)


def _through_copy(
    session: Session, found: Measured, k: int, o: int, own: _Column, copied: _Copy
) -> Iterator[Evidence]:
    """The layer's gradients beside those of its copy, once differences have confirmed these."""
    for s, wide in copied.gradients.items():
        unit = _unit(session, found, s)
        size, scale = unit * session.weighted(s, wide), _scale(own, s, found)
        floor = session.relative_floor(o, s) * size + unit * session.gradient_noise(k, o, s)
        if s in own.zeros:
            floor += VANISHES * session.eps * own.natural * found.shares[s]
        gradient = session.gradients[k][o][s]
        yield Evidence(
            NAME, session.outputs[o], session.slots[s].name,
            error=max(unit * session.weighted(s, gradient - wide), copied.error),
            scale=scale,
            floor=floor + copied.floor,
            worst=session.component(s, gradient, wide),
            detail="the derivative is zero up to rounding" if s in own.zeros else "",
        )  # fmt: skip


def _of_copy(
    session: Session, found: Measured, column: int, o: int, own: _Column, copied: _Copy
) -> Iterator[Evidence]:
    """Evidence on the gradients of the float64 copy, which come from the same code."""
    error, floor = copied.error, copied.floor
    doubt = 0.0
    if not error <= floor:
        total = max(float(np.hypot.reduce(list(own.sizes.values()))), abs(own.sees))
        jumps = len(found.steps) == 1 and not found.slope.flat[column]
        doubt = TRUST * float(found.slope.doubt[column])
        doubt += lag_of_jumps(session, found) * total if jumps else 0.0
    for s in found.steps:
        scale = _scale(own, s, found)
        if error > floor or floor <= RESOLUTION * scale:
            yield Evidence(
                COPY, session.outputs[o], session.slots[s].name,
                error=error, scale=scale, floor=floor, doubt=doubt, reference=False,
            )  # fmt: skip


def _undecided(session: Session, o: int, s: int, reason: str) -> Evidence:
    return Evidence(
        _name(session), session.outputs[o], session.slots[s].name, 0.0, 0.0, 0.0, unreliable=reason
    )


def _name(session: Session) -> str:
    if session.residual is not None:
        return f"{NAME} of the root"
    return NAME if session.tighten is None else f"{NAME} of the tightened layer"
