"""Flow in a square cavity driven by its lid, with a preconditioner that solves Stokes' equations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...options.options import is_number
from ..grid import (
    differences,
    eigenvalues,
    five_point,
    is_square,
    side,
    sine_transform,
    sine_transform_2d,
)
from ..problem import Device, TestProblem


@dataclass(frozen=True)
class DrivenCavity(TestProblem):
    """Stream function and vorticity: `−Δψ = ω`, `−Δω + Re (ψ_y ω_x − ψ_x ω_y) = 0`.

    `ψ` vanishes at the walls; the vorticity there is Thom's, `−2ψ/h²` from the node next to the wall, and
    `2/h` less at the lid (`y = 1`), which moves with velocity 1. Central differences; unknowns are `ψ`, then
    `ω`, at `m × m` interior nodes, `x` fastest.

    Attributes:
        reynolds: `Re`.
    """

    reynolds: float = 100.0

    name = "driven-cavity"
    tags = ("application", "scalable")
    source = "Ghia, Ghia & Shin 1982; Thom 1933 (walls)"
    standard_size = 98
    argument = "reynolds"
    sizes = "2m² with m ≥ 2"
    remark = "No solution has a closed form. At Re = 100 the centre of the vortex has ψ = −0.1034."

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.reynolds, 0):
            raise ValueError(f"reynolds must be a number ≥ 0, got {self.reynolds!r}")

    def allows(self, n: int) -> bool:
        return is_square(n, 2) and n >= 8

    def function(self, z: Tensor, reynolds: Tensor | float | None = None) -> Tensor:
        m = side(z.shape[-1], 2)
        h = 1 / (m + 1)
        stream, vorticity = z.unflatten(-1, (2, m, m)).unbind(-3)
        stream_wide = pad(stream, (1, 1, 1, 1))
        vorticity_wide = _with_walls(stream, vorticity, h)
        stream_x, stream_y = differences(stream_wide)
        vorticity_x, vorticity_y = differences(vorticity_wide)
        carried = (stream_y * vorticity_x - stream_x * vorticity_y) / (4 * h**2)
        number = self.reynolds if reynolds is None else reynolds
        first = five_point(stream, stream_wide) / h**2 - vorticity
        second = five_point(vorticity, vorticity_wide) / h**2 + number * carried
        return torch.stack((first, second), dim=-3).flatten(-3)

    def first(self, n: int) -> Tensor:
        return torch.zeros(n, dtype=torch.float64)

    def preconditioner(
        self, n: int | None = None, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> Callable[[Tensor], Tensor]:
        """The inverse for `Re = 0`, walls included: the other terms are a compact perturbation."""
        m = side(self.size(n), 2)
        stokes = _Stokes.on(m, dtype, device)

        def inverse(v: Tensor) -> Tensor:
            first, second = v.unflatten(-1, (2, m, m)).unbind(-3)
            return -torch.stack(stokes.solve(first, second), dim=-3).flatten(-3)

        return inverse


def _with_walls(stream: Tensor, vorticity: Tensor, h: float) -> Tensor:
    at_wall = -2 / h**2 * stream
    sides = (at_wall[..., :1], vorticity, at_wall[..., -1:])
    bottom = pad(at_wall[..., :1, :], (1, 1))
    lid = pad(at_wall[..., -1:, :] - 2 / h, (1, 1))
    return torch.cat((bottom, torch.cat(sides, dim=-1), lid), dim=-2)


@dataclass(frozen=True)
class _Stokes:
    """Solver of `Lψ/h² − ω = f`, `Lω/h² + 2UUᵀψ/h⁴ = g`, with `L` the five-point matrix.

    `U` selects the nodes next to the four walls, each wall as a line of `m` nodes (a corner belongs to
    two). With `c = 2Uᵀψ` these are two Poisson equations. Without `ψ` and `ω` they are

        (I/2 + Uᵀ L⁻² U) c = Uᵀ L⁻¹ (h² f + h⁴ L⁻¹ g),

    symmetric positive definite, for 4m unknowns. Sine transforms give its matrix in `O(m³) = O(n^1.5)`
    operations, once; a solve then takes four transforms and `O(m²)` more.

    Source: Buzbee, Dorr, George & Golub 1971 (capacitance matrix); Bjørstad 1983 (biharmonic equation).
    """

    inverse: Tensor
    """Reciprocal eigenvalues of `L`, `(m, m)`."""
    ends: Tensor
    """First and last row of the sine transform, `(2, m)`."""
    factor: Tensor
    """Cholesky factor of the capacitance matrix, `(4m, 4m)`."""

    @staticmethod
    def on(m: int, dtype: torch.dtype, device: torch.device | str | None) -> _Stokes:
        values = eigenvalues(m, dtype, device)
        inverse = 1 / (values.unsqueeze(1) + values)
        transform = sine_transform(torch.eye(m, dtype=dtype, device=device))
        ends = transform[[0, -1]]
        squared = inverse**2
        # Pairs of walls: parallel or perpendicular lines.
        alike = [
            [(transform * (squared @ (ends[a] * ends[b]))) @ transform for b in (0, 1)]
            for a in (0, 1)
        ]
        across = [
            [(transform * ends[b]) @ squared @ (ends[a].unsqueeze(1) * transform) for b in (0, 1)]
            for a in (0, 1)
        ]
        rows = torch.cat(
            (
                torch.cat((*alike[0], *across[0]), dim=1),
                torch.cat((*alike[1], *across[1]), dim=1),
                torch.cat((across[0][0].mT, across[1][0].mT, *alike[0]), dim=1),
                torch.cat((across[0][1].mT, across[1][1].mT, *alike[1]), dim=1),
            )
        )
        half = 0.5 * torch.eye(4 * m, dtype=dtype, device=device)
        return _Stokes(inverse, ends, torch.linalg.cholesky(rows + half))

    def solve(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """`ψ` and `ω`, all `(batch, m, m)`."""
        m = f.shape[-1]
        h = 1 / (m + 1)
        f, g = sine_transform_2d(torch.stack((f, g)))
        vorticity = h**2 * self.inverse * g
        stream = self.inverse * h**2 * (f + vorticity)
        right = self._at_walls(stream).flatten(-2).mT
        walls = torch.cholesky_solve(right, self.factor).mT.unflatten(-1, (4, m))
        correction = self.inverse * self._from_walls(walls)
        vorticity = vorticity - correction / h**2
        stream = stream - self.inverse * correction
        stream, vorticity = sine_transform_2d(torch.stack((stream, vorticity)))
        return stream, vorticity

    def _at_walls(self, transformed: Tensor) -> Tensor:
        """`Uᵀ` of a field given by its transform: bottom, lid, left, right; `(batch, 4, m)`."""
        lines = torch.cat((self.ends @ transformed, self.ends @ transformed.mT), dim=-2)
        return sine_transform(lines)

    def _from_walls(self, lines: Tensor) -> Tensor:
        """The transform of `U` times `lines`."""
        lines = sine_transform(lines)
        return self.ends.mT @ lines[..., :2, :] + lines[..., 2:, :].mT @ self.ends
