"""Complementarity problems: a membrane over an obstacle, and a small problem with a degenerate solution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .problem import BoundedProblem

_INF = math.inf
_NODES = 200


def membrane(z: Tensor) -> Tensor:
    """The force on a string that is fixed at both ends: second differences on a uniform grid."""
    inner = 2 * z
    inner = inner - torch.nn.functional.pad(z[..., 1:], (0, 1))
    inner = inner - torch.nn.functional.pad(z[..., :-1], (1, 0))
    return inner * (z.shape[-1] + 1) ** 2


def _obstacle() -> tuple[float, ...]:
    """A parabola `0.2 − 4 (x − ½)²` at the nodes."""
    left = [0.2 - 4 * (i / (_NODES + 1) - 0.5) ** 2 for i in range(1, _NODES // 2 + 1)]
    return (*left, *reversed(left))


def _contact() -> tuple[float, ...]:
    """The string over the obstacle: straight up to the first node of contact, by symmetry.

    That node `k` is the one at which the line from the end is steepest, so that it lies above all others.
    """
    obstacle = _obstacle()
    k = max(range(_NODES // 2), key=lambda i: obstacle[i] / (i + 1))
    left = [obstacle[i] if i >= k else obstacle[k] * (i + 1) / (k + 1) for i in range(_NODES // 2)]
    return (*left, *reversed(left))


def kojima_shindo(z: Tensor) -> Tensor:
    """Four quadratic functions; the solution nearest to the start has a bound that does not hold it back."""
    a, b, c, d = z.unbind(-1)
    return torch.stack(
        (
            3 * a**2 + 2 * a * b + 2 * b**2 + c + 3 * d - 6,
            2 * a**2 + a + b**2 + 10 * c + 2 * d - 2,
            3 * a**2 + a * b + 2 * b**2 + 2 * c + 9 * d - 9,
            a**2 + 3 * b**2 + 2 * c + 3 * d - 3,
        ),
        dim=-1,
    )


COMPLEMENTARY = (
    BoundedProblem(
        "obstacle",
        "complementarity",
        "Rodrigues 1987 (obstacle problems)",
        membrane,
        first=tuple(max(height, 0.0) + 0.1 for height in _obstacle()),
        lower=_obstacle(),
        upper=(_INF,) * _NODES,
        solution=_contact(),
    ),
    BoundedProblem(
        "kojima-shindo",
        "complementarity",
        "Kojima & Shindo 1986",
        kojima_shindo,
        first=(1.0,) * 4,
        lower=(0.0,) * 4,
        upper=(_INF,) * 4,
        solution=(math.sqrt(6) / 2, 0.0, 0.0, 0.5),
    ),
)
