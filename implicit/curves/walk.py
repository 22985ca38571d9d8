"""Steps along a curve, and points between two of its points."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .bordered import Linearize
from .corrector import Corrector
from .metric import Metric, root_mean_square
from .steps import StepLengths

# A correction longer than this part of its step leads elsewhere.
_FAR = 0.5
# An unknown so many times as large as its unit gets another.
_OUTGROWN = 1.5


@dataclass(frozen=True)
class CurvePoint:
    """A point of a curve.

    Attributes:
        w: `(z, λ)`, `(n + 1,)`.
        tangent: The tangent there, of length one.
        sign: The sign of the determinant with the tangent as a row; 0 where it is not known.
        arclength: The length of the chords from the start.
    """

    w: Tensor
    tangent: Tensor
    sign: int
    arclength: float = 0.0

    @property
    def slope(self) -> float:
        """The part of the tangent along the parameter; it changes its sign at folds."""
        return float(self.tangent[-1])


@dataclass(frozen=True)
class Advance:
    """The outcome of a step: the new point and the next length, or an account of why there is none."""

    point: CurvePoint | None
    length: float
    reason: str = ""


@dataclass(frozen=True)
class Walk:
    """The way of taking steps along one curve.

    Attributes:
        corrector: Newton's method across the curve.
        rule: Lengths of steps.
        grows: True if the unit of the unknown follows its size.
    """

    corrector: Corrector
    rule: StepLengths
    grows: bool = True

    @property
    def metric(self) -> Metric:
        return self.corrector.metric

    @property
    def linearize(self) -> Linearize:
        return self.corrector.linearize

    def point(self, w: Tensor, towards: Tensor, arclength: float = 0.0) -> CurvePoint | str:
        """The point at `w`, on the curve, with the tangent that has a positive part along `towards`.

        An account in place of the point where the matrix is singular: at a branch point.
        """
        found = self.corrector.linearized(w)
        if isinstance(found, str):
            return found
        factors = found[1].bordered(self.metric.row(towards).unsqueeze(0), self.metric.scales)
        last = torch.zeros_like(w)
        last[-1] = 1
        tangent = factors.solve(last)
        if factors.sign == 0 or not bool(torch.isfinite(tangent).all()):
            return "the bordered matrix is singular there, as at a branch point"
        return CurvePoint(w, self.metric.unit(tangent), factors.sign, arclength)

    def grown(self, point: CurvePoint) -> tuple[Walk, CurvePoint]:
        """The walk and the point in larger units, once the unknown is much larger than its unit."""
        size = float(root_mean_square(point.w))
        if not self.grows or size <= _OUTGROWN * self.metric.units[0]:
            return self, point
        metric = self.metric.grown(size)
        walk = replace(self, corrector=replace(self.corrector, metric=metric))
        return walk, replace(point, tangent=metric.unit(point.tangent))

    def advance(self, point: CurvePoint, length: float) -> Advance:
        """A step of `length` from `point`, or of a smaller one that succeeds."""
        reason = ""
        while length >= self.rule.smallest:
            target = point.w + length * point.tangent
            corrected = self.corrector.correct(target, self.metric.row(point.tangent))
            reason = corrected.reason
            if corrected.converged and corrected.distance > _FAR * length:
                reason = "the correction is longer than half of the step"
            elif corrected.converged:
                found = self._reached(point, corrected.w)
                if isinstance(found, CurvePoint):
                    turn = self.turn(point, found)
                    excess = self.rule.excess(corrected.contraction, turn)
                    if excess <= 2:
                        return Advance(found, self.rule.following(length, excess))
                    reason = f"the curve turns by {turn:.2g} radians"
                else:
                    reason = found
            length /= 2
        return Advance(None, length, reason)

    def turn(self, before: CurvePoint, after: CurvePoint) -> float:
        """The angle between two tangents."""
        units = (self.metric.unit(before.tangent), self.metric.unit(after.tangent))
        cosine = self.metric.inner(*units)
        return math.acos(min(1.0, max(-1.0, cosine)))

    def _reached(self, point: CurvePoint, w: Tensor) -> CurvePoint | str:
        distance = float(self.metric.length(w - point.w))
        return self.point(w, point.tangent, point.arclength + distance)

    def at_parameter(self, a: CurvePoint, b: CurvePoint, parameter: float) -> CurvePoint | str:
        """The point between `a` and `b` at this value of the parameter."""
        rise = float(b.w[-1] - a.w[-1])
        part = (parameter - float(a.w[-1])) / rise if rise != 0 else 0.0
        target = a.w + part * (b.w - a.w)
        target[-1] = parameter
        row = torch.zeros_like(target)
        row[-1] = 1
        return self._near(a, b, target, row)

    def between(self, a: CurvePoint, b: CurvePoint, part: float) -> CurvePoint | str:
        """The point in the plane across the chord from `a` to `b`, at this part of it."""
        chord = b.w - a.w
        return self._near(a, b, a.w + part * chord, self.metric.row(self.metric.unit(chord)))

    def _near(self, a: CurvePoint, b: CurvePoint, target: Tensor, row: Tensor) -> CurvePoint | str:
        chord = float(self.metric.length(b.w - a.w))
        corrected = self.corrector.correct(target, row)
        if not corrected.converged:
            return corrected.reason
        if float(self.metric.length(corrected.w - target)) > chord:
            return "the correction leads away from the curve"
        return self._reached(a, corrected.w)
