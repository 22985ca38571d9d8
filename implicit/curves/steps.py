"""Lengths of steps along a curve, from the contraction of corrections and the turn of the tangent."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...options.options import Options, is_positive


@dataclass(frozen=True)
class StepLengths(Options):
    """Rule for the steps of a continuation.

    Lengths are those of `(z / unknown, λ / parameter)`, with a root mean square over the unknown, so that
    they depend on no unit and on no number of unknowns. A step after which corrections contract by less
    than `contraction`, or the tangent turns by more than `angle`, makes the next one shorter, and is itself
    repeated where it is twice too long.

    Attributes:
        first: The first step.
        largest: The largest step; no two points of a curve are farther apart.
        smallest: The step below which the continuation ends, with the status `STEP_TOO_SMALL`.
        angle: The turn of the tangent in one step that is aimed at, in radians.
        contraction: The ratio of the second correction to the first that is aimed at.
        unknown: The root mean square of a change of the unknown that has the length one. `None` for its
            size at the start, or for its change over the range of the parameter if that is larger; it then
            grows with the unknown.
        parameter: The change of the parameter that has the length one; `None` for the distance of its bounds.

    Raises:
        ValueError: A length is not positive, or they are out of order; `angle` or `contraction` is not in
            (0, 1).

    Source: Allgower & Georg 1990, section 6.1 (algorithm 6.1.10).

    Examples:
        >>> StepLengths(largest=0.02).largest
        0.02
    """

    first: float = 0.02
    largest: float = 0.1
    smallest: float = 1e-7
    angle: float = 0.2
    contraction: float = 0.2
    unknown: float | None = None
    parameter: float | None = None

    def __post_init__(self) -> None:
        for name in ("first", "largest", "smallest"):
            if not is_positive(getattr(self, name)):
                raise ValueError(f"{name} must be a number > 0, got {getattr(self, name)!r}")
        if not self.smallest <= self.first <= self.largest:
            raise ValueError(
                f"smallest ≤ first ≤ largest must hold, got {self.smallest}, {self.first}, {self.largest}"
            )
        for name in ("unknown", "parameter"):
            unit = getattr(self, name)
            if unit is not None and not is_positive(unit):
                raise ValueError(f"{name} must be a number > 0 or None, got {unit!r}")
        for name in ("angle", "contraction"):
            if not (is_positive(getattr(self, name)) and getattr(self, name) < 1):
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)!r}")

    def excess(self, contraction: float, turn: float) -> float:
        """The factor by which a step was too long; above two it is to be repeated."""
        return max(math.sqrt(contraction / self.contraction), turn / self.angle)

    def following(self, length: float, excess: float) -> float:
        """The next step after one of `length`."""
        return min(self.largest, length / min(2.0, max(0.5, excess)))
