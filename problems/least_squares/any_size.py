"""The problems of the collection of any size, 20 to 35, at the sizes of its authors' tests."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..classical.any_size import BrownAlmostLinear, Trigonometric
from ..classical.banded import BroydenBanded, BroydenTridiagonal
from ..classical.discretised import DiscreteBoundaryValue, DiscreteIntegral
from ..problem import TestProblem, indices
from .problem import LeastSquaresProblem

_PENALTY = 1e-5


def watson(z: Tensor) -> Tensor:
    """A polynomial that solves a differential equation; as ill-conditioned as Hilbert's matrix."""
    n = z.shape[-1]
    t = torch.arange(1, 30, dtype=z.dtype, device=z.device).unsqueeze(1) / 29
    power = torch.arange(n, dtype=z.dtype, device=z.device)
    powers = t**power
    value = z @ powers.mT
    misfit = z @ (power * powers / t).mT - value**2 - 1
    x1, x2 = z[..., :1], z[..., 1:2]
    return torch.cat((misfit, x1, x2 - x1**2 - 1), dim=-1)


def extended_rosenbrock(z: Tensor) -> Tensor:
    """Curved valleys side by side."""
    odd, even = z[..., 0::2], z[..., 1::2]
    return torch.stack((10 * (even - odd**2), 1 - odd), dim=-1).flatten(-2)


def extended_powell(z: Tensor) -> Tensor:
    """Powell's singular function, several times."""
    a, b, c, d = (z[..., k::4] for k in range(4))
    rows = (a + 10 * b, math.sqrt(5) * (c - d), (b - 2 * c) ** 2, math.sqrt(10) * (a - d) ** 2)
    return torch.stack(rows, dim=-1).flatten(-2)


def penalty_1(z: Tensor) -> Tensor:
    """A sphere with a weak pull to one point."""
    norm = (z**2).sum(-1, keepdim=True) - 0.25
    return torch.cat((math.sqrt(_PENALTY) * (z - 1), norm), dim=-1)


def penalty_2(z: Tensor) -> Tensor:
    """An ellipsoid with a weak pull along exponentials."""
    n, root = z.shape[-1], math.sqrt(_PENALTY)
    i = indices(z)
    e = torch.exp(z / 10)
    y = torch.exp(i[1:] / 10) + torch.exp(i[:-1] / 10)
    pairs = root * (e[..., 1:] + e[..., :-1] - y)
    single = root * (e[..., 1:] - math.exp(-0.1))
    norm = ((n - i + 1) * z**2).sum(-1, keepdim=True) - 1
    return torch.cat((z[..., :1] - 0.2, pairs, single, norm), dim=-1)


def variably_dimensioned(z: Tensor) -> Tensor:
    """Linear residuals, a weighted sum and its square."""
    total = (indices(z) * (z - 1)).sum(-1, keepdim=True)
    return torch.cat((z - 1, total, total**2), dim=-1)


_LINEAR_RESIDUALS = 10


def linear_full_rank(z: Tensor) -> Tensor:
    """A linear function of full rank, with residuals that stay."""
    n, m = z.shape[-1], _LINEAR_RESIDUALS
    mean = 2 / m * z.sum(-1, keepdim=True) + 1
    return torch.cat((z - mean, -mean.expand(*z.shape[:-1], m - n)), dim=-1)


def linear_rank_1(z: Tensor) -> Tensor:
    """A linear function of rank one."""
    i = torch.arange(1, _LINEAR_RESIDUALS + 1, dtype=z.dtype, device=z.device)
    return i * (indices(z) * z).sum(-1, keepdim=True) - 1


def linear_rank_1_with_zeros(z: Tensor) -> Tensor:
    """A linear function of rank one with columns and rows of zeros."""
    m = _LINEAR_RESIDUALS
    i = torch.arange(m, dtype=z.dtype, device=z.device)
    weight = torch.where(i < m - 1, i, 0.0)
    return weight * (indices(z) * z)[..., 1:-1].sum(-1, keepdim=True) - 1


def chebyquad(z: Tensor) -> Tensor:
    """Chebyshev's quadrature on [0, 1] with equal weights."""
    before, polynomial = torch.ones_like(z), 2 * z - 1
    means = []
    for i in range(1, z.shape[-1] + 1):
        integral = -1 / (i * i - 1) if i % 2 == 0 else 0.0
        means.append(polynomial.mean(-1) - integral)
        before, polynomial = polynomial, 2 * (2 * z - 1) * polynomial - before
    return torch.stack(means, dim=-1)


def _nonlinear(problem: TestProblem, number: int, n: int, *minima: float) -> LeastSquaresProblem:
    """A system of equations of the registry as a least-squares problem."""
    root = problem.roots(n)[0].value
    source = problem.source.split(";")[0]
    start = tuple(problem.start(n).tolist())
    return LeastSquaresProblem(
        problem.name, number, source, problem.function, start, (0.0, *minima), tuple(root.tolist())
    )


_M = _LINEAR_RESIDUALS

ANY_SIZE = (
    LeastSquaresProblem(
        "watson", 20, "Kowalik & Osborne 1968", watson, (0.0,) * 9, (1.39976e-6,)
    ),
    LeastSquaresProblem(
        "extended-rosenbrock", 21, "Spedicato 1975", extended_rosenbrock, (-1.2, 1.0) * 5, (0.0,),
        (1.0,) * 10,
    ),
    LeastSquaresProblem(
        "extended-powell-singular", 22, "Spedicato 1975", extended_powell, (3.0, -1.0, 0.0, 1.0) * 3,
        (0.0,), (0.0,) * 12, unique=False,
    ),
    LeastSquaresProblem(
        "penalty-1", 23, "Gill, Murray & Pitfield 1972", penalty_1, (1.0, 2.0, 3.0, 4.0), (2.24997e-5,)
    ),
    LeastSquaresProblem(
        "penalty-2", 24, "Gill, Murray & Pitfield 1972", penalty_2, (0.5,) * 4, (9.37629e-6,)
    ),
    LeastSquaresProblem(
        "variably-dimensioned", 25, "Moré, Garbow & Hillstrom 1981", variably_dimensioned,
        tuple(1 - j / 10 for j in range(1, 11)), (0.0,), (1.0,) * 10,
    ),
    _nonlinear(Trigonometric(), 26, 10, 2.79506e-5),
    _nonlinear(BrownAlmostLinear(), 27, 10, 1.0),
    _nonlinear(DiscreteBoundaryValue(), 28, 10),
    _nonlinear(DiscreteIntegral(), 29, 10),
    _nonlinear(BroydenTridiagonal(), 30, 10),
    _nonlinear(BroydenBanded(), 31, 10),
    LeastSquaresProblem(
        "linear-full-rank", 32, "Moré, Garbow & Hillstrom 1981", linear_full_rank, (1.0,) * 5,
        (float(_M - 5),), (-1.0,) * 5,
    ),
    LeastSquaresProblem(
        "linear-rank-1", 33, "Moré, Garbow & Hillstrom 1981", linear_rank_1, (1.0,) * 5,
        (_M * (_M - 1) / (2 * (2 * _M + 1)),), unique=False,
    ),
    LeastSquaresProblem(
        "linear-rank-1-with-zeros", 34, "Moré, Garbow & Hillstrom 1981", linear_rank_1_with_zeros,
        (1.0,) * 5, ((_M * _M + 3 * _M - 6) / (2 * (2 * _M - 3)),), unique=False,
    ),
    LeastSquaresProblem(
        "chebyquad", 35, "Fletcher 1965", chebyquad, tuple(j / 9 for j in range(1, 9)), (3.51687e-3,)
    ),
)  # fmt: skip
