"""Backpropagation through iterations that follow the solution."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..equations.differentiation import constants
from ..equations.layout import Leaves
from .mode import Recording, TapedGradient


@dataclass(frozen=True)
class Phantom(TapedGradient):
    """Approximate: backpropagation through damped iterations that follow the detached solution.

    It equals the Neumann series of the damped map, cut off after `steps` terms.

    Attributes:
        steps: Number of iterations.
        damping: Step length of each, in `(0, 1]`.

    Raises:
        ValueError: An option is out of range.

    Source: Geng et al. 2021, "unrolling-based phantom gradient", eq. 10.

    Examples:
        >>> Phantom(steps=5, damping=0.5)
        Phantom(steps=5, damping=0.5)
    """

    steps: int = 5
    damping: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.steps, int) and self.steps >= 1):
            raise ValueError(f"steps must be an integer ≥ 1, got {self.steps!r}")
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping must be in (0, 1], got {self.damping!r}")

    def record(self, recording: Recording) -> Leaves:
        equation, solution = recording.equation, recording.outcome.value
        z, function = solution, equation.bind(recording.args).function
        for _ in range(self.steps):
            value = function(z)
            if equation.form == "fixed_point":
                z = tuple(torch.lerp(a, b, self.damping) for a, b in zip(z, value, strict=True))
            else:
                z = tuple(a - self.damping * r for a, r in zip(z, value, strict=True))
        # The value is the solution; the derivatives are those of the iterations.
        return tuple(
            leaf + (recorded - constant)
            for leaf, recorded, constant in zip(solution, z, constants(z), strict=True)
        )
