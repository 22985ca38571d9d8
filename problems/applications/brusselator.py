"""Steady state of the Brusselator on a periodic grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...options.options import is_positive
from ..grid import is_square, side
from ..problem import TestProblem


@dataclass(frozen=True)
class Brusselator(TestProblem):
    """`(α/δ²) L u + B + u²v − (A+1) u + s = 0` and `(α/δ²) L v + A u − u²v = 0`, `L` five-point.

    `u` and `v` are on a periodic grid of `m × m` nodes `δ = 1/(m − 1)` apart; `s` is 5 in a disc, else 0.

    Attributes:
        diffusion: `α`.
        feed: `B`.
        rate: `A`.
    """

    diffusion: float = 10.0
    feed: float = 1.0
    rate: float = 3.4

    name = "brusselator"
    tags = ("application", "scalable")
    source = "Prigogine & Lefever 1968; SciMLBenchmarks (Pal 2023)"
    standard_size = 128
    sizes = "2m² with m ≥ 2"
    remark = "No solution has a closed form. At m = 2 the equations are those of the mean."

    def __post_init__(self) -> None:
        super().__post_init__()
        for parameter in ("diffusion", "feed", "rate"):
            if not is_positive(getattr(self, parameter)):
                value = getattr(self, parameter)
                raise ValueError(f"{parameter} must be a number > 0, got {value!r}")

    def allows(self, n: int) -> bool:
        return is_square(n, 2) and n >= 8

    def function(self, z: Tensor) -> Tensor:
        m = side(z.shape[-1], 2)
        u, v = z.unflatten(-1, (2, m, m)).unbind(-3)
        line = torch.linspace(0, 1, m, dtype=z.dtype, device=z.device)
        disc = (line.unsqueeze(1) - 0.3) ** 2 + (line - 0.6) ** 2 <= 0.01
        spread = self.diffusion * (m - 1) ** 2
        reaction = u**2 * v
        first = spread * _periodic(u) + self.feed + reaction - (self.rate + 1) * u + 5 * disc
        second = spread * _periodic(v) + self.rate * u - reaction
        return torch.stack((first, second), dim=-3).flatten(-3)

    def first(self, n: int) -> Tensor:
        m = side(n, 2)
        line = torch.linspace(0, 1, m, dtype=torch.float64)
        parabola = (line * (1 - line)) ** 1.5
        return torch.cat(
            (
                (22 * parabola).expand(m, m).flatten(),
                (27 * parabola).unsqueeze(1).expand(m, m).flatten(),
            )
        )


def _periodic(u: Tensor) -> Tensor:
    return u.roll(1, -1) + u.roll(-1, -1) + u.roll(1, -2) + u.roll(-1, -2) - 4 * u
