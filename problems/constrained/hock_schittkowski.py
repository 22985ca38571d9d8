"""Minima with constraints of Hock & Schittkowski (1981), by number: thirteen of 2 to 7 unknowns."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .problem import ConstrainedProblem, Function

Numbers = tuple[float, ...]


def _last(*values: Tensor) -> Tensor:
    return torch.stack(values, dim=-1)


def logarithm(z: Tensor) -> Tensor:
    """Problem 7: a logarithm."""
    return torch.log1p(z[..., 0] ** 2) - z[..., 1]


def closed(z: Tensor) -> Tensor:
    """Problem 7: a closed curve."""
    return _last((1 + z[..., 0] ** 2) ** 2 + z[..., 1] ** 2 - 4)


def cubic(z: Tensor) -> Tensor:
    """Problem 24: a cubic, least in a corner of a triangle."""
    x, y = z.unbind(-1)
    return ((x - 3) ** 2 - 9) * y**3 / (27 * math.sqrt(3))


def triangle(z: Tensor) -> Tensor:
    """Problem 24: a triangle."""
    x, y = z.unbind(-1)
    root = math.sqrt(3)
    return _last(y - x / root, -x - root * y, x + root * y - 6)


def beale(z: Tensor) -> Tensor:
    """Problem 35: a convex quadratic."""
    x, y, w = z.unbind(-1)
    square = 2 * x**2 + 2 * y**2 + w**2 + 2 * x * y + 2 * x * w
    return 9 - 8 * x - 6 * y - 4 * w + square


def surfaces(z: Tensor) -> Tensor:
    """Problem 39: two curved surfaces."""
    a, b, c, d = z.unbind(-1)
    return _last(b - a**3 - c**2, a**2 - b - d**2)


def powers(z: Tensor) -> Tensor:
    """Problem 40: three equations between powers."""
    a, b, c, d = z.unbind(-1)
    return _last(a**3 + b**2 - 1, a**2 * d - c, d**2 - b)


def rosen_suzuki(z: Tensor) -> Tensor:
    """Problem 43: a convex quadratic."""
    weights, slopes = z.new_tensor((1.0, 1.0, 2.0, 1.0)), z.new_tensor((-5.0, -5.0, -21.0, 7.0))
    return (weights * z.square() + slopes * z).sum(-1)


def ellipsoids(z: Tensor) -> Tensor:
    """Problem 43: three ellipsoids."""
    squares = z.new_tensor(((1.0, 1, 1, 1), (1, 2, 1, 2), (2, 1, 1, 0)))
    slopes = z.new_tensor(((1.0, -1, 1, -1), (-1, 0, 0, -1), (2, -1, 0, -1)))
    return z.square() @ squares.mT + z @ slopes.mT - z.new_tensor((8.0, 10.0, 5.0))


def products(z: Tensor) -> Tensor:
    """Problem 71: a sum of products."""
    a, b, c, d = z.unbind(-1)
    return a * d * (a + b + c) + c


def quadratic(z: Tensor) -> Tensor:
    """Problem 76: a convex quadratic."""
    a, b, c, d = z.unbind(-1)
    return a**2 + b**2 / 2 + c**2 + d**2 / 2 - a * c + c * d - a - 3 * b + c - d


def planes(z: Tensor) -> Tensor:
    """Problem 76: three planes."""
    a, b, c, d = z.unbind(-1)
    return _last(a + 2 * b + c + d - 5, 3 * a + b + 2 * c - d - 4, 1.5 - b - 4 * c)


def sixth_powers(z: Tensor) -> Tensor:
    """Problem 100: powers up to the sixth."""
    a, b, c, d, e, f, g = z.unbind(-1)
    smooth = (a - 10) ** 2 + 5 * (b - 12) ** 2 + c**4 + 3 * (d - 11) ** 2
    return smooth + 10 * e**6 + 7 * f**2 + g**4 - 4 * f * g - 10 * f - 8 * g


def four_limits(z: Tensor) -> Tensor:
    """Problem 100: four limits, of which two are active."""
    a, b, c, d, e, f, g = z.unbind(-1)
    return _last(
        2 * a**2 + 3 * b**4 + c + 4 * d**2 + 5 * e - 127,
        7 * a + 3 * b + 10 * c**2 + d - e - 282,
        23 * a + b**2 + 6 * f**2 - 8 * g - 196,
        4 * a**2 + b**2 - 3 * a * b + 2 * c**2 + 5 * f - 11 * g,
    )


def _problem(
    number: int, objective: Function, first: Numbers, solution: Numbers, value: float, **more: Any
) -> ConstrainedProblem:
    source = f"Hock & Schittkowski 1981, problem {number}"
    return ConstrainedProblem(
        f"hock-schittkowski-{number}", source, objective, first, solution, value, **more
    )


_ROOT = math.sqrt(7)

HOCK_SCHITTKOWSKI = (
    _problem(
        6, lambda z: (1 - z[..., 0]) ** 2, (-1.2, 1.0), (1.0, 1.0), 0.0,
        equalities=lambda z: 10 * _last(z[..., 1] - z[..., 0] ** 2),
    ),
    _problem(7, logarithm, (2.0, 2.0), (0.0, math.sqrt(3)), -math.sqrt(3), equalities=closed),
    _problem(
        10, lambda z: z[..., 0] - z[..., 1], (-10.0, 10.0), (0.0, 1.0), -1.0,
        inequalities=lambda z: _last(2 * z[..., 0] ** 2 + (z[..., 0] - z[..., 1]) ** 2 - 1),
    ),
    _problem(
        12, lambda z: z[..., 0] ** 2 / 2 + z[..., 1] ** 2 - z.prod(-1) - 7 * z.sum(-1), (0.0, 0.0),
        (2.0, 3.0), -30.0,
        inequalities=lambda z: _last(4 * z[..., 0] ** 2 + z[..., 1] ** 2 - 25),
    ),
    _problem(
        14, lambda z: (z[..., 0] - 2) ** 2 + (z[..., 1] - 1) ** 2, (2.0, 2.0),
        ((_ROOT - 1) / 2, (_ROOT + 1) / 4), 9 - 2.875 * _ROOT,
        equalities=lambda z: _last(z[..., 0] - 2 * z[..., 1] + 1),
        inequalities=lambda z: _last(z[..., 0] ** 2 / 4 + z[..., 1] ** 2 - 1),
    ),
    _problem(
        24, cubic, (1.0, 0.5), (3.0, math.sqrt(3)), -1.0, inequalities=triangle, lower=(0.0, 0.0)
    ),
    _problem(
        35, beale, (0.5, 0.5, 0.5), (4 / 3, 7 / 9, 4 / 9), 1 / 9, lower=(0.0, 0.0, 0.0),
        inequalities=lambda z: _last(z[..., 0] + z[..., 1] + 2 * z[..., 2] - 3),
    ),
    _problem(
        39, lambda z: -z[..., 0], (2.0, 2.0, 2.0, 2.0), (1.0, 1.0, 0.0, 0.0), -1.0,
        equalities=surfaces,
    ),
    _problem(
        40, lambda z: -z.prod(-1), (0.8, 0.8, 0.8, 0.8),
        (2 ** (-1 / 3), 2**-0.5, 2 ** (-11 / 12), 2**-0.25), -0.25, equalities=powers,
    ),
    _problem(
        43, rosen_suzuki, (0.0, 0.0, 0.0, 0.0), (0.0, 1.0, 2.0, -1.0), -44.0,
        inequalities=ellipsoids,
    ),
    _problem(
        71, products, (1.0, 5.0, 5.0, 1.0), (1.0, 4.74299964, 3.82114999, 1.37940829), 17.0140173,
        equalities=lambda z: _last(z.square().sum(-1) - 40),
        inequalities=lambda z: _last(25 - z.prod(-1)), lower=(1.0,) * 4, upper=(5.0,) * 4,
        digits=7,
    ),
    _problem(
        76, quadratic, (0.5, 0.5, 0.5, 0.5), (3 / 11, 23 / 11, 0.0, 6 / 11), -103 / 22,
        inequalities=planes, lower=(0.0,) * 4,
    ),
    _problem(
        100, sixth_powers, (1.0, 2.0, 0.0, 4.0, 0.0, 1.0, 1.0),
        (2.330499, 1.951372, -0.4775414, 4.365726, -0.6244870, 1.038131, 1.594227), 680.6300573,
        inequalities=four_limits, digits=5,
    ),
)  # fmt: skip
