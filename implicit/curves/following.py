"""A curve followed from its start until it leaves the bounds, closes, or can be followed no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

from .special import Search, SpecialPoint
from .walk import CurvePoint, Walk

# A closed curve has met its start to this length.
_CLOSED = 1e-5
# The next point of a curve that closes has a tangent within this angle of that at the start, in radians; a
# chord through the start, of two sides at these parts of the step, within the other.
_TURN, _ALONG, _SIDE = 0.6, 0.05, 0.1
# The middle of that chord is so near to the start, as a part of the step.
_BESIDE = 0.05
# A fold is out of bounds by more than this part of them.
_PAST = 1e-9
# A step of this part of the first one is too short to lead to another curve.
_SHORT = 0.1
# A special point so near to another of its kind is the same.
_SAME = 1e-5


class CurveStatus(IntEnum):
    """How a curve ended; `message` says it in words.

    Examples:
        >>> CurveStatus.CLOSED.message
        'the curve has closed on itself'
    """

    BOUND = 1
    CLOSED = 2
    MAX_POINTS = 3
    UNKNOWN_BOUND = 4
    COMPLETE = 5
    FOLD = 6
    STEP_TOO_SMALL = 7
    SINGULAR_START = 8
    NOT_A_ROOT = 9

    @property
    def message(self) -> str:
        return _MESSAGES[self]

    @property
    def failed(self) -> bool:
        """True where the curve goes on, and could not be followed."""
        return self >= CurveStatus.STEP_TOO_SMALL


_MESSAGES = {
    CurveStatus.BOUND: "the parameter has reached a bound",
    CurveStatus.CLOSED: "the curve has closed on itself",
    CurveStatus.MAX_POINTS: "the limit on points was reached first",
    CurveStatus.UNKNOWN_BOUND: "the unknown has left its bounds",
    CurveStatus.COMPLETE: "all values of the parameter were reached",
    CurveStatus.FOLD: "the branch ends at a fold before the next value of the parameter",
    CurveStatus.STEP_TOO_SMALL: "no step above the smallest one succeeds",
    CurveStatus.SINGULAR_START: "the curve has no single tangent at its start",
    CurveStatus.NOT_A_ROOT: "the start does not solve the equation, and no root was found from it",
}


@dataclass(frozen=True)
class Limits:
    """The end of a curve.

    Attributes:
        parameter: Bounds of the parameter.
        unknown: Bounds of every entry of the unknown.
        points: The most points.
        at_folds: True if the curve ends at its first fold.
    """

    parameter: tuple[float, float]
    unknown: tuple[float, float] = (float("-inf"), float("inf"))
    points: int = 1000
    at_folds: bool = False

    def past(self, w: Tensor) -> float | None:
        """The bound that the parameter has reached or passed, or `None`."""
        value = float(w[-1])
        low, high = self.parameter
        return low if value <= low else high if value >= high else None

    def outside(self, value: float) -> bool:
        """True if the parameter is out of bounds by more than rounding."""
        low, high = self.parameter
        return value < low - _PAST * abs(low) or value > high + _PAST * abs(high)

    def leaves(self, w: Tensor) -> bool:
        """True if an entry of the unknown is out of bounds."""
        low, high = self.unknown
        return bool(((w[:-1] < low) | (w[:-1] > high)).any())


@dataclass
class Trace:
    """Points of a curve, special points between them, and how it ended."""

    points: list[CurvePoint]
    special: list[SpecialPoint] = field(default_factory=list)
    status: CurveStatus = CurveStatus.MAX_POINTS
    reason: str = ""
    length: float = 0.0
    """The length of the next step."""

    def note(self, found: list[SpecialPoint], search: Search) -> None:
        """Add special points, those left out that are known already."""
        for point in found:
            flat = _flat(point, search)
            same = (
                other.kind == point.kind
                and float(search.walk.metric.length(_flat(other, search) - flat)) <= _SAME
                for other in self.special
            )
            if not any(same):
                self.special.append(point)


def follow(
    walk: Walk,
    search: Search | None,
    limits: Limits,
    start: CurvePoint,
    *,
    switched: bool = False,
    first: float | None = None,
) -> Trace:
    """The curve from `start` in the direction of its tangent.

    Args:
        walk: Steps along the curve.
        search: Search for special points; `None` for none.
        limits: The end of the curve.
        start: The first point.
        switched: The start is a branch point, and the curve another than the one on which it was found.
        first: The first step; `None` for that of the rule.
    """
    trace = Trace([start], length=walk.rule.first if first is None else first)
    bound = limits.past(start.w)
    if bound is not None and start.slope * (bound - sum(limits.parameter) / 2) > 0:
        trace.status = CurveStatus.BOUND
        return trace
    if search is not None and not switched:
        trace.note(search.at_start(start), search)
    while len(trace.points) < limits.points:
        walk, before = walk.grown(trace.points[-1])
        trace.points[-1] = before
        step = walk.advance(before, trace.length)
        if step.point is None:
            trace.status, trace.reason = CurveStatus.STEP_TOO_SMALL, step.reason
            return trace
        trace.length = step.length
        ended = _ended(walk, limits, trace, step.point)
        fresh = switched and len(trace.points) == 1
        found = _found(search, limits, trace, ended, fresh=fresh)
        if isinstance(found, str):  # The end lies in this step, and was not reached: a shorter one.
            trace.length = float(walk.metric.length(step.point.w - before.w)) / 2
            if trace.length >= walk.rule.smallest:
                continue
            trace.status, trace.reason = CurveStatus.STEP_TOO_SMALL, found
            return trace
        status, point = found
        if limits.at_folds and before.slope * point.slope < 0 and not fresh:
            trace.status = CurveStatus.FOLD
            return trace
        trace.points.append(point)
        if status is not None:
            trace.status = status
            return trace
    return trace


def _found(
    search: Search | None,
    limits: Limits,
    trace: Trace,
    ended: tuple[CurveStatus | None, CurvePoint] | str,
    *,
    fresh: bool,
) -> tuple[CurveStatus | None, CurvePoint] | str:
    """Note the special points of a step that is taken.

    A fold out of bounds says that it was too long. So does a special point that cannot be solved for: the
    step may have led to another curve. It is named all the same where shorter steps find it too.
    """
    if search is None or isinstance(ended, str):
        return ended
    before, index = trace.points[-1], len(trace.points) - 1
    special = search.between(before, ended[1], index, skip_fold=fresh)
    for point in special:
        if point.kind == "fold" and limits.outside(point.parameter.item()):
            return "the curve turns outside of the bounds within one step"
    length = float(search.walk.metric.length(ended[1].w - before.w))
    if length > _SHORT * search.walk.rule.first and not all(point.located for point in special):
        return "a special point within the step could not be solved for"
    trace.note(special, search)
    return ended


def _ended(
    walk: Walk, limits: Limits, trace: Trace, point: CurvePoint
) -> tuple[CurveStatus | None, CurvePoint] | str:
    """The status if the curve ends in the step to `point`, and its end in place of `point`."""
    before = trace.points[-1]
    bound = limits.past(point.w)
    if bound is not None:
        end = walk.at_parameter(before, point, bound)
        return end if isinstance(end, str) else (CurveStatus.BOUND, end)
    closed = _closed(walk, trace, point)
    if closed is not None:
        return CurveStatus.CLOSED, closed
    if limits.leaves(point.w):
        return CurveStatus.UNKNOWN_BOUND, point
    return None, point


def _closed(walk: Walk, trace: Trace, point: CurvePoint) -> CurvePoint | None:
    """The start, if the curve passes through it on the way to `point` in the same direction."""
    start, before, metric = trace.points[0], trace.points[-1], walk.metric
    chord = point.w - before.w
    length = float(metric.length(chord))
    part = metric.inner(start.w - before.w, chord) / length**2
    if len(trace.points) < 3 or not 0 <= part <= 1:
        return None
    beside = float(metric.length(start.w - before.w - part * chord))
    if beside > length or walk.turn(start, point) > _TURN:
        return None
    # Both sides of the start tell where the curve meets it, also at a branch point.
    sides = [walk.between(before, point, part + side) for side in (-_SIDE, _SIDE)]
    if any(isinstance(side, str) for side in sides):
        return None
    one, other = (side.w for side in sides if isinstance(side, CurvePoint))
    through = CurvePoint(start.w, metric.unit(other - one), 0)
    middle = float(metric.length((one + other) / 2 - start.w))
    if walk.turn(start, through) > _ALONG or middle > _BESIDE * length:
        return None
    if start.sign != 0:
        row = metric.row(metric.unit(chord))
        corrected = walk.corrector.correct(before.w + part * chord, row)
        away = float(metric.length(corrected.w - start.w))
        if not corrected.converged or away > _CLOSED:
            return None
    distance = float(metric.length(start.w - before.w))
    return CurvePoint(start.w, start.tangent, start.sign, before.arclength + distance)


def _flat(point: SpecialPoint, search: Search) -> Tensor:
    z = search.equation.flat(point.z).detach()
    return torch.cat((z, point.parameter.detach().reshape(1)))
