"""Objectives and least squares with bounds, most of them of Hock & Schittkowski (1981), by number."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .problem import BoundedProblem

Numbers = tuple[float, ...]
_INF = math.inf


def rosenbrock(z: Tensor) -> Tensor:
    """Problems 1 to 2: a curved valley."""
    x, y = z.unbind(-1)
    return 100 * (y - x**2) ** 2 + (1 - x) ** 2


def cubic(z: Tensor) -> Tensor:
    """Problem 4: a cubic and a line, least in a corner."""
    x, y = z.unbind(-1)
    return (x + 1) ** 3 / 3 + y


def sine(z: Tensor) -> Tensor:
    """Problem 5: a sine and a parabola."""
    x, y = z.unbind(-1)
    return torch.sin(x + y) + (x - y) ** 2 - 1.5 * x + 2.5 * y + 1


def product(z: Tensor) -> Tensor:
    """Problem 45: two less a product, least in a corner."""
    return 2 - z.prod(dim=-1) / 120


def logarithms(z: Tensor) -> Tensor:
    """Problem 110: logarithms that exist between 2 and 10 alone."""
    squares = torch.log(z - 2) ** 2 + torch.log(10 - z) ** 2
    return squares.sum(dim=-1) - z.prod(dim=-1) ** 0.2


def valley(z: Tensor) -> Tensor:
    """The residuals of Rosenbrock's valley."""
    x, y = z.unbind(-1)
    return torch.stack((10 * (y - x**2), 1 - x), dim=-1)


_MATRIX = (
    (1.0, 2.0, 0.0), (0.0, 1.0, -1.0), (2.0, 0.0, 1.0), (1.0, -1.0, 3.0),
)  # fmt: skip


def nonnegative(z: Tensor) -> Tensor:
    """Linear residuals, whose least-squares solution without bounds has a negative entry."""
    matrix = torch.tensor(_MATRIX, dtype=z.dtype, device=z.device)
    right = torch.tensor((1.0, 2.0, -1.0, -3.0), dtype=z.dtype, device=z.device)
    return z @ matrix.mT - right


def _hock_schittkowski(
    number: int,
    function: Callable[[Tensor], Tensor],
    first: Numbers,
    lower: Numbers,
    upper: Numbers,
    solution: Numbers,
) -> BoundedProblem:
    return BoundedProblem(
        f"hock-schittkowski-{number}", "minimise", f"Hock & Schittkowski 1981, problem {number}",
        function, first, lower, upper, solution,
    )  # fmt: skip


_HALF_WIDTH = math.sqrt(598 / 1200)

MINIMA = (
    _hock_schittkowski(
        2, rosenbrock, (2.0, 1.5), (-_INF, 1.5), (_INF, _INF),
        # 2 a cos(arccos(1 / b) / 3) for a = √(598 / 1200) and b = 400 a³.
        (2 * _HALF_WIDTH * math.cos(math.acos(1 / (400 * _HALF_WIDTH**3)) / 3), 1.5),
    ),
    _hock_schittkowski(4, cubic, (1.125, 0.125), (1.0, 0.0), (_INF, _INF), (1.0, 0.0)),
    _hock_schittkowski(
        5, sine, (0.0, 0.0), (-1.5, -3.0), (4.0, 3.0), (0.5 - math.pi / 3, -0.5 - math.pi / 3)
    ),
    _hock_schittkowski(
        45, product, (0.5,) * 5, (0.0,) * 5, (1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 2.0, 3.0, 4.0, 5.0)
    ),
    # The root of the derivative along the diagonal, by bisection in 40 digits.
    _hock_schittkowski(
        110, logarithms, (9.0,) * 10, (2.001,) * 10, (9.999,) * 10, (9.3502658330693851579,) * 10
    ),
    BoundedProblem(
        "bounded-valley", "least_squares", "Rosenbrock 1960, with a bound of the toolkit's own", valley,
        (-1.2, 0.5), (-_INF, -_INF), (_INF, 0.5), (0.70855950376134981933, 0.5),
    ),
    # The normal equation of the second unknown, 6 z = 7; the gradient in the others is 31/6 and 22/3.
    BoundedProblem(
        "nonnegative-least-squares", "least_squares", "Lawson & Hanson 1974, chapter 23 (the problem)",
        nonnegative, (1.0, 1.0, 1.0), (0.0,) * 3, (_INF,) * 3, (0.0, 7 / 6, 0.0),
    ),
)  # fmt: skip
