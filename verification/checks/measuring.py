"""Directional differences: of the root if the equation is known, of a tightened layer, or of the layer.

Differences of a layer's own output see its solver: jumps in the number of iterations, and between them the
slope of the truncated iteration. Differences of the root see neither. Without an equation, but with a way
to tighten the tolerance, differences of ever tighter layers are taken until they converge. The differences
of a layer in a narrow dtype are those of its float64 copy, where it has one.

A direction may move several slots at once. The steps of each are then chosen so that all contribute alike
to the derivative that the layer claims, so that none hides behind another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from ..differences import WIDEST, Slope, jump_near, slope
from ..polish import PolishError, Root
from ..real import real, widened
from ..session import NotExercisedError, Session
from ..subject import LayerError, Subject, Tensors

_UNFINISHED = 64.0
"""Noise above this multiple of rounding indicates an iteration that stops at a tolerance."""
_LAG = 1e3
"""The relative error of an unfinished iteration's gradient is at most this multiple of that of its values."""
TRUST = 4.0
"""The true error of differences may exceed their estimate by up to this factor."""
_SHRINKS = 0.5
"""Changes between tolerances must shrink to below this fraction, or the values do not converge."""
_COMPARABLE = 1e-5
"""Slots whose claimed derivatives are smaller than this share of the largest are not balanced with the
others."""

CENTRAL = ((1, 2 / 3), (2, -1 / 12))
"""Weights of `f(kh) − f(−kh)` in a central difference of order 4 (Fornberg 1988, table 1)."""

Directions = Mapping[int, Tensor]
"""Steps of some slots, by position."""
Moved = Callable[[Directions, float], Tensors]
"""The outputs with some slots moved by a multiple of their steps."""
Group = tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """Derivatives along one direction: a column for each output and cotangent.

    Attributes:
        slope: The derivatives.
        natural: Sizes of the terms in each column, the scale of rounding and of derivatives.
        steps: The direction: a step of each slot.
        shares: The step of each slot, as a multiple of its size.
        sample: The measured functions of the length of the step.
    """

    slope: Slope
    natural: np.ndarray
    steps: dict[int, Tensor]
    shares: dict[int, float]
    sample: Callable[[float], np.ndarray]


def measured(session: Session, group: Group, kind: int) -> Measured:
    """Derivatives of all `⟨cotangent, output⟩` along a direction of some slots, kept for other checks.

    Raises:
        ArithmeticError: No spacing gives values.
    """
    key = (group, kind)
    if key not in session.measured:
        try:
            session.measured[key] = _drawn(session, group, kind)
        except ArithmeticError:
            if len(group) > 1 or group[0] in session.entrywise:
                raise
            # Some entries may have left the domain, as the small ones of positive numbers do.
            session.entrywise.add(group[0])
            session.measured[key] = _drawn(session, group, kind)
    found: Measured = session.measured[key]
    return found


def _drawn(session: Session, group: Group, kind: int) -> Measured:
    shares = _balanced(session, group)
    steps = {s: shares[s] * session.size(s) * widened(session.direction(s, kind)) for s in group}
    return measure(session, steps, shares)


def _balanced(session: Session, group: Group) -> dict[int, float]:
    """The step of each slot as a multiple of its size, at most 1."""
    claimed = {
        s: session.size(s)
        * max(
            (session.weighted(s, row[o][s]) for row in session.gradients for o in range(len(row))),
            default=0.0,
        )
        for s in group
    }
    largest = max((c for c in claimed.values() if np.isfinite(c)), default=0.0)
    comparable = [c for c in claimed.values() if c > _COMPARABLE * largest and np.isfinite(c)]
    least = min(comparable, default=0.0)
    return {
        s: least / c if c > _COMPARABLE * largest and np.isfinite(c) else 1.0
        for s, c in claimed.items()
    }


def measure(
    session: Session, steps: dict[int, Tensor], shares: dict[int, float] | None = None
) -> Measured:
    """Derivatives along any steps.

    Raises:
        ArithmeticError: No spacing gives values.
    """
    shares = shares or dict.fromkeys(steps, 1.0)
    if session.tighten is not None and session.residual is None:
        return _settled(session, steps, shares)
    return _of(session, steps, shares, moved_outputs(session))


def moved_outputs(session: Session) -> Moved:
    """The most accurate known outputs: of the root, the tightest layer, the float64 copy, or the layer."""
    root = polished_root(session)
    if root is not None:
        return moved_root(root)
    if session.tighten is not None:
        return moved_layer(session.tightened.subjects[-1])
    return moved_layer(session.subject if session.copy is None else session.copy[0])


def _settled(session: Session, steps: dict[int, Tensor], shares: dict[int, float]) -> Measured:
    """Derivatives of ever tighter layers, extrapolated as a geometric series of changes.

    If changes shrink by `ρ`, the remainder after the last one is `ρ/(1 − ρ)` times it (Aitken 1926). The
    remainder is added to the value, and to the error.
    """
    found: Measured | None = None
    change = before = np.inf
    for subject in session.tightened.subjects:
        try:
            now = _of(session, steps, shares, moved_layer(subject))
        except ArithmeticError:  # A tolerance that the layer cannot reach.
            break
        if found is not None:
            step = now.slope.value - found.slope.value
            before, change = change, np.abs(step)
            ratio = np.clip(change / np.maximum(before, 1e-300), 0.0, 0.99)
            left = np.where(change == 0, 0.0, step * ratio / (1 - ratio))
            # The first change has no predecessor: the remainder may be as large as the change.
            left_at_most = np.where(np.isfinite(before), np.abs(left), change)
            restless = (ratio > _SHRINKS) & (change > TRUST * now.slope.error)
            error = now.slope.error + np.where(restless, change / (1 - ratio), left_at_most)
            value = now.slope.value + np.where(np.isfinite(before) & ~restless, left, 0.0)
            found = replace(now, slope=replace(now.slope, value=value, error=error))
            if (left_at_most <= now.slope.error).all():
                break
        else:
            found = replace(
                now, slope=replace(now.slope, error=np.full_like(now.slope.error, np.inf))
            )
    if found is None or not np.isfinite(found.slope.error).all():
        raise ArithmeticError("tighten= gave only one layer: two tolerances are needed")
    return found


def _of(
    session: Session, steps: dict[int, Tensor], shares: dict[int, float], moved: Moved
) -> Measured:
    columns = columns_of(session)

    def sample(t: float) -> np.ndarray:
        return projected(session, moved(steps, t))

    relative = np.array(
        [max(session.relative_floor(o, s) for s in steps) / TRUST for _, o in columns]
    )
    if session.copy is not None:
        relative = np.minimum(relative, 1e-9)
    claimed = np.array(
        [
            sum(
                (shares[s] * session.size(s) * session.weighted(s, session.gradients[k][o][s])) ** 2
                for s in steps
            )
            ** 0.5
            for k, o in columns
        ]
    )
    natural = np.array(
        [
            float((real(session.probes[k][o]) * real(session.tape.values[o])).norm())
            for k, o in columns
        ]
    )
    narrow = session.solver_is_known or session.copy is not None
    eps = float(np.finfo(float).eps) if narrow else session.eps
    claimed = np.nan_to_num(claimed, nan=0.0, posinf=0.0)
    found = slope(sample, 1.0, relative, claimed, eps * np.nan_to_num(natural))
    return Measured(found, natural, steps, shares, sample)


def quick(session: Session, steps: dict[int, Tensor], spacing: float) -> np.ndarray:
    """Derivatives by one central difference of order 4, without an estimate of their error.

    Raises:
        ArithmeticError: The layer has no values there.
    """
    moved = moved_outputs(session)

    def odd(t: float) -> np.ndarray:
        return projected(session, moved(steps, t)) - projected(session, moved(steps, -t))

    return np.asarray(sum(c * odd(k * spacing) for k, c in CENTRAL)) / spacing


def projected(session: Session, outputs: Sequence[Tensor]) -> np.ndarray:
    """`⟨cotangent, output⟩` of every column."""
    flat = [real(output).reshape(-1) for output in outputs]
    return np.array(
        [
            float(real(session.probes[k][o]).reshape(-1) @ flat[o])
            if flat[o].numel() == real(session.probes[k][o]).numel()
            else np.nan
            for k, o in columns_of(session)
        ]
    )


def moved_root(root: Root) -> Moved:
    """The outputs at the root."""

    def outputs(steps: Directions, t: float) -> Tensors:
        if t == 0:
            return root.equation.parts(root.z)
        try:
            return root.equation.parts(root.moved(shifted(root.equation.base, steps, t)))
        except LayerError as error:
            raise PolishError(str(error)) from error

    return outputs


def moved_layer(subject: Subject) -> Moved:
    """The outputs of a layer itself."""

    def outputs(steps: Directions, t: float) -> Tensors:
        values = [slot.value for slot in subject.slots]
        try:
            return subject.values(shifted(values, steps, t) if t else values)
        except LayerError as error:
            raise ArithmeticError(str(error)) from error

    return outputs


def shifted(values: Sequence[Tensor], steps: Directions, t: float) -> list[Tensor]:
    """Values of all slots, with some of them moved; each is rounded to its dtype once."""
    return [
        (widened(value) + t * steps[s]).to(value.dtype) if s in steps else value
        for s, value in enumerate(values)
    ]


def claimed(session: Session, found: Measured, k: int, o: int) -> float:
    """The derivative that the layer claims along a measured direction."""
    return sum(
        float((session.gradients[k][o][s] * real(step)).sum()) for s, step in found.steps.items()
    )


def relative_jump(session: Session, found: Measured) -> float:
    """The largest jump that the measured functions make nearby, relative to their terms; 0 for continuous
    ones.

    Two calls at the same inputs that differ count as well.
    """
    try:
        size = jump_near(found.sample, WIDEST, found.natural)
    except ArithmeticError:
        return session.repeat
    return max(session.repeat, size if size > _UNFINISHED * _working_eps(session) else 0.0)


def _working_eps(session: Session) -> float:
    return float(np.finfo(float).eps) if session.copy is not None else session.eps


def doubt_of(session: Session, s: int) -> float:
    """Relative error that a gradient in one slot may have from an iteration that stops elsewhere in each
    call.
    """
    if session.solver_is_known:
        return 0.0

    def found(group: Group) -> float:
        try:
            return relative_jump(session, measured(session, group, 0))
        except ArithmeticError:
            return session.repeat

    everything = tuple(range(len(session.slots)))
    joint = session.once(("jump", everything), lambda: found(everything))
    if joint <= session.repeat or len(everything) == 1:
        return _LAG * joint
    return _LAG * session.once(("jump", (s,)), lambda: found((s,)))


def has_kink(session: Session, o: int, s: int) -> bool:
    """True if the slopes of an output on both sides differ along a direction of one slot."""
    try:
        found = measured(session, (s,), 0)
    except ArithmeticError:
        return False
    columns = [column for column, (_, output) in enumerate(columns_of(session)) if output == o]
    return bool((found.slope.jump[columns] > 0).any())


def lag_of_jumps(session: Session, found: Measured) -> float:
    """The same along a measured direction."""
    if session.solver_is_known:
        return 0.0
    group = tuple(found.steps)
    return _LAG * session.once(("jump along", group), lambda: relative_jump(session, found))


def polished_root(session: Session) -> Root | None:
    """The polished root, or `None` if the equation is unknown or unsolved."""
    try:
        return session.roots[1]
    except NotExercisedError:
        return None


def columns_of(session: Session) -> list[tuple[int, int]]:
    """The cotangents and outputs, `(k, o)`, of the measured columns."""
    return [(k, o) for o in range(len(session.outputs)) for k in range(session.cotangents)]


def along(session: Session, s: int, kind: int) -> Tensor:
    """A direction of one slot as real numbers."""
    return real(session.direction(s, kind))
