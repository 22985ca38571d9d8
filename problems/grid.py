"""Square grids: differences, and the Poisson equation by fast sine transforms.

A function on the unit square that vanishes at its boundary is `(..., m, m)`: its values at the interior
nodes `(i h, j h)`, `h = 1/(m + 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


def side(n: int, fields: int = 1) -> int:
    """`m` for `n = fields · m²` unknowns."""
    return math.isqrt(n // fields)


def is_square(n: int, fields: int = 1) -> bool:
    """True if `n = fields · m²` for some `m ≥ 1`."""
    return n >= fields and fields * side(n, fields) ** 2 == n


def nodes(m: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinates `x`, along the last axis, and `y`, along the one before, of an `m × m` grid."""
    line = torch.arange(1, m + 1, dtype=like.dtype, device=like.device) / (m + 1)
    return line, line.unsqueeze(1)


def five_point(u: Tensor, walls: Tensor | None = None) -> Tensor:
    """`4u − Σ neighbours`; outside the grid `u` is zero, or as in `walls`, `(..., m+2, m+2)`."""
    wide = pad(u, (1, 1, 1, 1)) if walls is None else walls
    return 4 * u - (
        wide[..., 1:-1, 2:] + wide[..., 1:-1, :-2] + wide[..., 2:, 1:-1] + wide[..., :-2, 1:-1]
    )


def differences(wide: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences `2h ∂/∂x` and `2h ∂/∂y` of a field with its boundary values."""
    return (
        wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2],
        wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1],
    )


def sine_transform(x: Tensor) -> Tensor:
    """Sine transform `S x` along the last axis; `S_jk = √(2/(m+1)) sin(π j k/(m+1))` is its own inverse.

    It is the imaginary part of a Fourier transform of length `2(m+1)` (Van Loan 1992, section 4.4).
    """
    m = x.shape[-1]
    transform = torch.fft.rfft(pad(x, (1, 0)), n=2 * (m + 1))
    return -math.sqrt(2 / (m + 1)) * transform.imag[..., 1 : m + 1]


def sine_transform_2d(f: Tensor) -> Tensor:
    """`S f S` for a symmetric orthogonal `S`, on the last two axes; its own inverse."""
    return sine_transform(sine_transform(f).mT).mT


def eigenvalues(m: int, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    """Eigenvalues of the second difference `(−1, 2, −1)` on `m` nodes."""
    index = torch.arange(1, m + 1, dtype=dtype, device=device)
    return 4 * torch.sin(math.pi * index / (2 * (m + 1))) ** 2


@dataclass(frozen=True)
class FastPoisson:
    """Solver of `4u − Σ neighbours = f` on an `m × m` grid with `u = 0` outside, in `O(m² log m)`.

    Attributes:
        inverse: The reciprocal eigenvalues, `(m, m)`.

    Source: Buzbee, Golub & Nielson 1970, section 2 (matrix decomposition), by fast transforms.

    Examples:
        >>> f = torch.ones(1, 3, 3)
        >>> u = FastPoisson.on(3, torch.float32).solve(f)
        >>> bool((five_point(u) - f).abs().max() < 1e-6)
        True
    """

    inverse: Tensor

    @staticmethod
    def on(m: int, dtype: torch.dtype, device: torch.device | str | None = None) -> FastPoisson:
        """The solver for an `m × m` grid."""
        values = eigenvalues(m, dtype, device)
        return FastPoisson(1 / (values.unsqueeze(1) + values))

    def solve(self, f: Tensor) -> Tensor:
        """`u` from `f`, both `(..., m, m)`."""
        return sine_transform_2d(sine_transform_2d(f) * self.inverse)


def inverse_laplacian(
    n: int, dtype: torch.dtype, device: torch.device | str | None
) -> Callable[[Tensor], Tensor]:
    """The inverse of `−(4u − Σ neighbours)` on flat `(batch, n)` tensors: a preconditioner."""
    m = side(n)
    poisson = FastPoisson.on(m, dtype, device)
    return lambda v: -poisson.solve(v.unflatten(-1, (m, m))).flatten(-2)
