"""Convection and diffusion with a known solution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...options.options import is_number
from ..grid import differences, five_point, nodes, side
from ..problem import Device, Root
from .unit_square import OnUnitSquare


@dataclass(frozen=True)
class ConvectionDiffusion(OnUnitSquare):
    """`−Δu + c u (u_x + u_y) = g` on the unit square by central differences, times `h²`.

    `g` is chosen so that `u* = 10 x y (1−x)(1−y) e^{x^4.5}` solves the difference equations exactly.

    Attributes:
        convection: `c`.
    """

    convection: float = 20.0

    name = "convection-diffusion"
    source = "Kelley 2003, section 3.7"
    standard_size = 225
    remark = "The root given is exact for the difference equations."

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.convection, 0):
            raise ValueError(f"convection must be a number ≥ 0, got {self.convection!r}")

    def args(
        self, n: int | None = None, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> tuple[Tensor]:
        """`h² g`, `(n,)`."""
        size = self.size(n)
        return (self._left(self._solution(size)).flatten(-2).to(dtype=dtype, device=device),)

    def function(self, z: Tensor, source: Tensor | None = None) -> Tensor:
        n = z.shape[-1]
        m = side(n)
        if source is None:
            (source,) = self.args(n, z.dtype, z.device)
        return self._left(z.unflatten(-1, (m, m))).flatten(-2) - source

    def _left(self, u: Tensor) -> Tensor:
        wide = pad(u, (1, 1, 1, 1))
        along_x, along_y = differences(wide)
        h = 1 / (u.shape[-1] + 1)
        return five_point(u, wide) + self.convection * h / 2 * u * (along_x + along_y)

    def _solution(self, n: int) -> Tensor:
        x, y = nodes(side(n), torch.empty(0, dtype=torch.float64))
        return 10 * x * y * (1 - x) * (1 - y) * torch.exp(x**4.5)

    def known(self, n: int) -> list[Root]:
        return [Root(self._solution(n).flatten())]
